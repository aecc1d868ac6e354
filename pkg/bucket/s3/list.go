package s3

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

// SupportedIterOptions returns all options there are.
func (b *Bucket) SupportedIterOptions() []objstore.IterOptionType {
	return []objstore.IterOptionType{objstore.Recursive, objstore.UpdatedAt}
}

// Iter calls f for every name in dir, sorted.
func (b *Bucket) Iter(ctx context.Context, dir string, f func(string) error, options ...objstore.IterOption) error {
	return b.IterWithAttributes(ctx, dir, func(a objstore.IterObjectAttributes) error { return f(a.Name) }, options...)
}

// IterWithAttributes calls f for every name in dir, sorted, with the time of the
// last write when asked for; directories have none.
func (b *Bucket) IterWithAttributes(ctx context.Context, dir string, f func(objstore.IterObjectAttributes) error, options ...objstore.IterOption) error {
	if err := objstore.ValidateIterOptions(b.SupportedIterOptions(), options...); err != nil {
		return fmt.Errorf("iterate %s: %w", dir, err)
	}
	params := objstore.ApplyIterOptions(options...)
	if dir != "" && !strings.HasSuffix(dir, objstore.DirDelim) {
		dir += objstore.DirDelim
	}
	q := query{prefix: dir}
	if !params.Recursive {
		q.delimiter = objstore.DirDelim
	}
	return b.pages(ctx, q, func(o contract.Object) error {
		if o.Name == dir {
			return nil
		}
		attrs := objstore.IterObjectAttributes{Name: o.Name}
		if params.LastModified {
			attrs.SetLastModified(o.LastModified)
		}
		return f(attrs)
	})
}

// List lists flat, a thousand objects a request.
func (b *Bucket) List(ctx context.Context, prefix, after string, fn func(contract.Object) error) error {
	return b.pages(ctx, query{prefix: prefix, after: after}, fn)
}

// query is one listing. With a delimiter the names that share their part up to it
// appear as that part.
type query struct{ prefix, after, delimiter string }

// page is one answer to it, sorted, and how to ask for the next: by token, or, in
// version 1, by the last name. Neither says that it was the last page.
type page struct {
	entries     []contract.Object
	token, last *string
}

func (b *Bucket) pages(ctx context.Context, q query, fn func(contract.Object) error) error {
	ask := b.pageV2
	if b.conf.ListObjectsVersion == "v1" {
		ask = b.pageV1
	}
	var at page
	for {
		p, err := ask(ctx, q, at)
		if err != nil {
			return b.explain("list", q.prefix, err)
		}
		for _, o := range p.entries {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("list %s: %w", q.prefix, err)
			}
			if err := fn(o); err != nil {
				return err
			}
		}
		if p.token == nil && p.last == nil {
			return nil
		}
		at = p
	}
}

func (b *Bucket) pageV2(ctx context.Context, q query, at page) (page, error) {
	client, err := b.api(ctx)
	if err != nil {
		return page{}, err
	}
	in := &s3.ListObjectsV2Input{Bucket: &b.conf.Bucket, Prefix: &q.prefix, Delimiter: optional(q.delimiter), ContinuationToken: at.token}
	if at.token == nil {
		in.StartAfter = optional(q.after)
	}
	out, err := client.ListObjectsV2(ctx, in)
	if err != nil {
		return page{}, err //nolint:wrapcheck // the caller explains it
	}
	p := page{entries: entries(out.Contents, out.CommonPrefixes)}
	if aws.ToBool(out.IsTruncated) {
		p.token = out.NextContinuationToken
	}
	return p, nil
}

func (b *Bucket) pageV1(ctx context.Context, q query, at page) (page, error) {
	client, err := b.api(ctx)
	if err != nil {
		return page{}, err
	}
	in := &s3.ListObjectsInput{Bucket: &b.conf.Bucket, Prefix: &q.prefix, Delimiter: optional(q.delimiter), Marker: at.last}
	if at.last == nil {
		in.Marker = optional(q.after)
	}
	out, err := client.ListObjects(ctx, in)
	if err != nil {
		return page{}, err //nolint:wrapcheck // the caller explains it
	}
	p := page{entries: entries(out.Contents, out.CommonPrefixes)}
	if aws.ToBool(out.IsTruncated) && len(p.entries) > 0 {
		// NextMarker comes only with a delimiter; the last name does always.
		p.last = &p.entries[len(p.entries)-1].Name
	}
	return p, nil
}

// entries puts objects and common prefixes into one order.
func entries(objects []types.Object, prefixes []types.CommonPrefix) []contract.Object {
	all := make([]contract.Object, 0, len(objects)+len(prefixes))
	for _, o := range objects {
		all = append(all, contract.Object{
			Name: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), LastModified: aws.ToTime(o.LastModified), ETag: unquote(o.ETag),
		})
	}
	for _, p := range prefixes {
		all = append(all, contract.Object{Name: aws.ToString(p.Prefix)})
	}
	slices.SortFunc(all, func(x, y contract.Object) int { return strings.Compare(x.Name, y.Name) })
	return all
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
