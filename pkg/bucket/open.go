package bucket

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/gcs"
	"go.yaml.in/yaml/v2"

	"github.com/varve-io/varve/pkg/bucket/s3"
)

// supported lists the types that Open knows.
const supported = "S3, GCS, AZURE and FILESYSTEM"

// config is the outer form of objstore's YAML.
type config struct {
	Type   string `yaml:"type"`
	Config any    `yaml:"config"`
	Prefix string `yaml:"prefix"`
}

// Open opens the configured object storage below its prefix, with metrics. It
// checks the configuration only and asks the network nothing, but for AZURE, whose
// provider looks for its container: a component that serves without a bucket for a
// while can start, and Check tells the others what is wrong.
//
// The bucket is always a Lister, and Versioned where its provider is. It is safe
// for concurrent use; the caller closes it.
func Open(ctx context.Context, o Options, log *slog.Logger, reg prometheus.Registerer) (objstore.Bucket, error) {
	content, err := o.content()
	if err != nil {
		return nil, err
	}
	var c config
	if err := strict(content, &c, "the object storage configuration"); err != nil {
		return nil, err
	}
	inner, err := c.provider(ctx, log)
	if err != nil {
		return nil, err
	}
	return withMetrics(WithPrefix(inner, c.Prefix), reg), nil
}

// provider opens the bucket that is configured, bare.
func (c config) provider(ctx context.Context, log *slog.Logger) (objstore.Bucket, error) {
	section := []byte("{}")
	if c.Config != nil {
		var err error
		if section, err = yaml.Marshal(c.Config); err != nil {
			return nil, fmt.Errorf("config of type %s: %w", c.Type, err)
		}
	}
	var b objstore.Bucket
	var err error
	switch objstore.ObjProvider(strings.ToUpper(c.Type)) {
	case objstore.S3:
		conf := s3.Defaults()
		if err = strict(section, &conf, "config of type S3"); err == nil {
			b, err = s3.New(ctx, conf, log)
		}
	case objstore.FILESYSTEM:
		var conf filesystemConfig
		if err = strict(section, &conf, "config of type FILESYSTEM"); err == nil {
			b, err = newFilesystem(conf)
		}
	case objstore.GCS:
		conf := gcs.DefaultConfig
		if err = strict(section, &conf, "config of type GCS"); err == nil {
			b, err = gcs.NewBucketWithConfig(ctx, goKit(log), conf, "varve", nil)
		}
	case objstore.AZURE:
		// The provider parses itself: it derives settings from others meanwhile.
		conf := azure.DefaultConfig
		if err = strict(section, &conf, "config of type AZURE"); err == nil {
			b, err = azure.NewBucket(goKit(log), section, "varve", nil)
		}
	case "":
		return nil, errors.New("the object storage configuration has no type: supported are " + supported)
	default:
		return nil, fmt.Errorf("object storage of type %s is not supported: supported are %s", c.Type, supported)
	}
	if err != nil {
		return nil, fmt.Errorf("open object storage of type %s: %w", strings.ToUpper(c.Type), err)
	}
	if p := b.Provider(); p == objstore.GCS || p == objstore.AZURE {
		b = foreign{b}
	}
	return b, nil
}

// strict parses YAML into out, with the defaults that out holds already; unknown
// keys are errors that name the key.
func strict(content []byte, out any, what string) error {
	err := yaml.UnmarshalStrict(content, out)
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:")
	text = regexp.MustCompile(`line \d+: field (\S+) not found in type \S+`).ReplaceAllString(text, "unknown key $1")
	text = regexp.MustCompile(`(?:field|key) "?([^"\s]+)"? already set in (?:type )?\S+`).ReplaceAllString(text, "key $1 is set twice")
	return fmt.Errorf("%s: %s", what, strings.Join(strings.Fields(text), " "))
}
