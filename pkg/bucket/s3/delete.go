package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

const (
	// batchSize is the most that one DeleteObjects takes.
	batchSize = 1000
	// singleDeletes is how many run at a time when batches are not to be had.
	singleDeletes = 8
)

// Delete removes an object; S3 does not say whether it was there.
func (b *Bucket) Delete(ctx context.Context, name string) error {
	client, err := b.api(ctx)
	if err != nil {
		return b.explain("delete", name, err)
	}
	_, err = client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.conf.Bucket, Key: &name})
	if err = b.explain("delete", name, err); errors.Is(err, contract.ErrNotFound) {
		return nil // some stores do say it
	}
	return err
}

// DeleteBatch removes objects a thousand a request, or one by one where the store
// does not know batches.
func (b *Bucket) DeleteBatch(ctx context.Context, names []string) error {
	for batch := range slices.Chunk(names, batchSize) {
		err := b.deleteObjects(ctx, batch)
		if lacksBatches(err) {
			err = b.deleteSingly(ctx, batch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Bucket) deleteObjects(ctx context.Context, names []string) error {
	client, err := b.api(ctx)
	if err != nil {
		return b.explain("delete from", "", err)
	}
	ids := make([]types.ObjectIdentifier, len(names))
	for i := range names {
		ids[i].Key = &names[i]
	}
	out, err := client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &b.conf.Bucket, Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
	}, b.withMD5)
	if err != nil {
		return b.explain("delete from", "", err)
	}
	var errs []error
	for _, e := range out.Errors {
		if code := aws.ToString(e.Code); code != "NoSuchKey" && code != "NotFound" {
			v := b.judgeCode(code, nil)
			err := fmt.Errorf("delete %s in bucket %s: %s: %s", aws.ToString(e.Key), b.conf.Bucket, code, aws.ToString(e.Message))
			if v.mark != nil {
				err = contract.Mark(err, v.mark)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// withMD5 adds the digest that older stores demand of this one request.
func (b *Bucket) withMD5(o *s3.Options) {
	if b.conf.SendContentMD5 == nil || *b.conf.SendContentMD5 {
		o.APIOptions = append(o.APIOptions, smithyhttp.AddContentChecksumMiddleware)
	}
}

// lacksBatches reports whether a store does not know DeleteObjects as we send it.
func lacksBatches(err error) bool {
	switch code, _ := apiCode(err); code {
	case "NotImplemented", "MethodNotAllowed", "MissingContentMD5", "InvalidDigest":
		return true
	}
	r := responseOf(err)
	return r != nil && (r.StatusCode == http.StatusNotImplemented || r.StatusCode == http.StatusMethodNotAllowed)
}

func (b *Bucket) deleteSingly(ctx context.Context, names []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(singleDeletes)
	for _, name := range names {
		g.Go(func() error { return b.Delete(ctx, name) })
	}
	return g.Wait()
}
