package history

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"
)

// Bucket is a bucket on an S3 server that speaks plain HTTP.
type Bucket struct {
	Endpoint, Name, AccessKey, SecretKey string
}

// Upload ships generated blocks as a sidecar does: meta.json last. progress is
// called after each block, from several goroutines.
func (b Bucket) Upload(ctx context.Context, dirs []string, progress func()) error {
	client := b.client()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, dir := range dirs {
		g.Go(func() error {
			if err := b.uploadBlock(ctx, client, dir); err != nil {
				return fmt.Errorf("upload block %s: %w", dir, err)
			}
			progress()
			return nil
		})
	}
	return g.Wait()
}

func (b Bucket) client() *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String("http://" + b.Endpoint),
		Region:       "us-east-1",
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(b.AccessKey, b.SecretKey, ""),
	})
}

func (b Bucket) uploadBlock(ctx context.Context, client *s3.Client, dir string) error {
	segments, err := filepath.Glob(filepath.Join(dir, "chunks", "*"))
	if err != nil {
		return err
	}
	for _, file := range append(segments, filepath.Join(dir, "index"), filepath.Join(dir, "meta.json")) {
		rel, err := filepath.Rel(filepath.Dir(dir), file)
		if err != nil {
			return err
		}
		if err := b.put(ctx, client, path.Clean(filepath.ToSlash(rel)), file); err != nil {
			return err
		}
	}
	return nil
}

func (b Bucket) put(ctx context.Context, client *s3.Client, key, file string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: &b.Name, Key: &key, Body: f})
	return err
}

// Keys lists the names of all objects.
func (b Bucket) Keys(ctx context.Context) ([]string, error) {
	pages := s3.NewListObjectsV2Paginator(b.client(), &s3.ListObjectsV2Input{Bucket: &b.Name})
	var keys []string
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, o := range page.Contents {
			keys = append(keys, *o.Key)
		}
	}
	return keys, nil
}

// Get reads an object.
func (b Bucket) Get(ctx context.Context, key string) (data []byte, err error) {
	answer, err := b.client().GetObject(ctx, &s3.GetObjectInput{Bucket: &b.Name, Key: &key})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	return io.ReadAll(answer.Body)
}

// Sums returns the SHA-256 of every object whose key is wanted.
func (b Bucket) Sums(ctx context.Context, want func(key string) bool) (map[string]string, error) {
	keys, err := b.Keys(ctx)
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for _, key := range keys {
		if !want(key) {
			continue
		}
		data, err := b.Get(ctx, key)
		if err != nil {
			return nil, err
		}
		sums[key] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return sums, nil
}
