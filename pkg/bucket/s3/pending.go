package s3

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

// PendingUploads lists uploads in parts that are neither complete nor given up, a thousand a request.
func (b *Bucket) PendingUploads(ctx context.Context, prefix string, fn func(contract.PendingUpload) error) error {
	client, err := b.api(ctx)
	if err != nil {
		return b.explain("list the uploads of", prefix, err)
	}
	in := &s3.ListMultipartUploadsInput{Bucket: &b.conf.Bucket, Prefix: optional(prefix)}
	for {
		out, err := client.ListMultipartUploads(ctx, in)
		if err != nil {
			return b.explain("list the uploads of", prefix, err)
		}
		for _, u := range out.Uploads {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("list the uploads of %s: %w", prefix, err)
			}
			if err := fn(contract.PendingUpload{Name: aws.ToString(u.Key), ID: aws.ToString(u.UploadId), Begun: aws.ToTime(u.Initiated)}); err != nil {
				return err
			}
		}
		if !aws.ToBool(out.IsTruncated) || aws.ToString(out.NextKeyMarker) == "" {
			return nil
		}
		in.KeyMarker, in.UploadIdMarker = out.NextKeyMarker, out.NextUploadIdMarker
	}
}

// AbortUpload frees the parts of an upload.
func (b *Bucket) AbortUpload(ctx context.Context, u contract.PendingUpload) error {
	client, err := b.api(ctx)
	if err != nil {
		return b.explain("abort the upload of", u.Name, err)
	}
	_, err = client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.conf.Bucket, Key: &u.Name, UploadId: &u.ID})
	if r := responseOf(err); r != nil && r.StatusCode == http.StatusNotFound {
		return nil // it is gone already
	}
	return b.explain("abort the upload of", u.Name, err)
}
