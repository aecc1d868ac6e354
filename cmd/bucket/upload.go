package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/varve-io/varve/pkg/bucketops"
	"github.com/varve-io/varve/pkg/daemon"
)

// uploadBlocks brings local blocks into the bucket.
func (a *app) uploadBlocks() {
	var in bucketops.Import
	var labels []string
	c := a.command("upload-blocks", "Upload the blocks of a Prometheus' data directory.", func(ctx context.Context, e env) (table, error) {
		in.Labels = map[string]string{}
		for _, text := range labels {
			name, value, err := parseLabel(text)
			if err != nil {
				return table{}, fmt.Errorf("--label=%s: %w", text, err)
			}
			in.Labels[name] = value
		}
		return result(e.op.UploadBlocks(ctx, in))
	})
	c.Flag("path", "Prometheus' data directory, which holds the blocks.").Default("./data").StringVar(&in.Path)
	c.Flag("label", `External label that the blocks get, as key="value"; may be repeated.`).PlaceHolder(`key="value"`).StringsVar(&labels)
	c.Flag("shipper.upload-compacted", "Upload blocks that Prometheus compacted, too.").BoolVar(&in.Compacted)
	a.bindDryRun(c)
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV))
	c.Ignore(daemon.Ignored{Name: "shipper.upload-concurrency"})
}

// parseLabel reads key="value".
func parseLabel(text string) (name, value string, err error) {
	name, quoted, ok := strings.Cut(text, "=")
	value, err = strconv.Unquote(quoted)
	if !ok || err != nil || name == "" {
		return "", "", errors.New(`write it as key="value"`)
	}
	return name, value, nil
}
