package bucket_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

func TestConfigurationsThatCannotBeMeantAreRefused(t *testing.T) {
	t.Setenv("VARVE_TEST_DIR", t.TempDir())
	file := filepath.Join(t.TempDir(), "bucket.yaml")
	if err := os.WriteFile(file, []byte("type: FILESYSTEM\nconfig: {directory: $(VARVE_TEST_DIR)}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		options bucket.Options
		want    string // part of the error; empty if there is none
	}{
		"a file":                        {bucket.Options{ConfigFile: file}, ""},
		"text":                          {bucket.Options{Config: "type: FILESYSTEM\nconfig:\n  directory: $(VARVE_TEST_DIR)"}, ""},
		"a type in lower case":          {bucket.Options{Config: "type: s3\nconfig: {bucket: b, endpoint: e}"}, ""},
		"both":                          {bucket.Options{ConfigFile: file, Config: "type: S3"}, "set only one"},
		"neither":                       {bucket.Options{}, "--objstore.config"},
		"blanks":                        {bucket.Options{Config: " \n"}, "is empty"},
		"a file that is not there":      {bucket.Options{ConfigFile: file + "x"}, "--objstore.config-file"},
		"a variable that is not set":    {bucket.Options{Config: "type: FILESYSTEM\nconfig: {directory: $(VARVE_TEST_UNSET)}"}, "$(VARVE_TEST_UNSET)"},
		"no type":                       {bucket.Options{Config: "config: {}"}, "has no type: supported are S3"},
		"a type of Thanos we have not":  {bucket.Options{Config: "type: SWIFT"}, "SWIFT is not supported: supported are S3"},
		"an unknown outer key":          {bucket.Options{Config: "type: S3\nbucket: b"}, "unknown key bucket"},
		"an unknown S3 key":             {bucket.Options{Config: "type: S3\nconfig: {bucket: b, acess_key: k}"}, "config of type S3: unknown key acess_key"},
		"an unknown inner S3 key":       {bucket.Options{Config: "type: S3\nconfig: {bucket: b, http_config: {timeout: 1s}}"}, "unknown key timeout"},
		"an unknown FILESYSTEM key":     {bucket.Options{Config: "type: FILESYSTEM\nconfig: {dir: x}"}, "config of type FILESYSTEM: unknown key dir"},
		"an unknown GCS key":            {bucket.Options{Config: "type: GCS\nconfig: {bukket: x}"}, "config of type GCS: unknown key bukket"},
		"an unknown AZURE key":          {bucket.Options{Config: "type: AZURE\nconfig: {acount: x}"}, "config of type AZURE: unknown key acount"},
		"a key that is set twice":       {bucket.Options{Config: "type: S3\ntype: GCS"}, "type is set twice"},
		"a value of another kind":       {bucket.Options{Config: "type: S3\nconfig: {bucket: b, insecure: maybe}"}, "config of type S3"},
		"S3 without a bucket":           {bucket.Options{Config: "type: S3\nconfig: {part_size: 1}"}, "open object storage of type S3: bucket is missing: name the bucket; part_size 1"},
		"FILESYSTEM without directory":  {bucket.Options{Config: "type: FILESYSTEM"}, "directory is missing"},
		"FILESYSTEM in a file":          {bucket.Options{Config: "type: FILESYSTEM\nconfig: {directory: " + file + "}"}, "is a file"},
		"what is no YAML":               {bucket.Options{Config: "type: [S3"}, "the object storage configuration"},
		"AZURE without what it needs":   {bucket.Options{Config: "type: AZURE\nconfig: {container: c}"}, "storage_account"},
		"http_config in part":           {bucket.Options{Config: "type: S3\nconfig: {bucket: b, http_config: {idle_conn_timeout: 5s}}"}, ""},
		"a certificate that is no file": {bucket.Options{Config: "type: S3\nconfig: {bucket: b, http_config: {tls_config: {ca_file: /nowhere}}}"}, "http_config"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := bucket.Open(t.Context(), tc.options, slog.New(slog.DiscardHandler), nil)
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("open: got %v, want an error with %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("open: got %q, want one line", err)
			}
			if err == nil {
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
	}
}

func FuzzConfigurationsNeverPanic(f *testing.F) {
	f.Add("type: S3\nconfig: {bucket: b, put_user_metadata: {a: b}, part_size: 5242880}\nprefix: a/b")
	f.Add("type: FILESYSTEM\nconfig:\n  directory: /nowhere\n")
	f.Add("type: $(HOME)\nconfig: [1, 2]")
	f.Add("&a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		if upper := strings.ToUpper(text); strings.Contains(upper, "GCS") || strings.Contains(upper, "AZURE") {
			t.Skip("their providers go to the network")
		}
		b, err := bucket.Open(t.Context(), bucket.Options{Config: text}, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			return
		}
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func TestTheWrappersKeepTheCapabilities(t *testing.T) {
	b := open(t, "type: FILESYSTEM\nconfig: {directory: "+t.TempDir()+"}\nprefix: p")
	if _, ok := b.(bucket.Versioned); !ok {
		t.Error("FILESYSTEM below a prefix is not Versioned")
	}
	if _, ok := b.(bucket.Lister); !ok {
		t.Error("FILESYSTEM below a prefix is no Lister")
	}
	plain := bucket.WithPrefix(objstore.NewInMemBucket(), "p")
	if _, ok := plain.(bucket.Versioned); ok {
		t.Error("a provider without conditional writes became Versioned")
	}
	if _, ok := plain.(bucket.Lister); !ok {
		t.Error("a provider below a prefix is no Lister")
	}
}

func TestAProviderWithoutCapabilitiesStillListsUploadsAndDeletes(t *testing.T) {
	b := objstore.NewInMemBucket()
	for _, name := range []string{"a", "dir/1", "dir/2", "dir/3", "z"} {
		if err := b.Upload(t.Context(), name, strings.NewReader(name)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := bucket.List(t.Context(), b, "dir/", "dir/1", func(o bucket.Object) error {
		if o.Size != int64(len(o.Name)) || o.LastModified.IsZero() {
			t.Errorf("entry: got %+v, want size and time", o)
		}
		got = append(got, o.Name)
		return nil
	})
	if err != nil || strings.Join(got, " ") != "dir/2 dir/3" {
		t.Errorf("list: got %q, %v, want dir/2 and dir/3", got, err)
	}
	if err := bucket.UploadIfAbsent(t.Context(), b, "a", strings.NewReader("x")); !errors.Is(err, bucket.ErrExists) {
		t.Errorf("upload under a name taken: got %v, want ErrExists", err)
	}
	if err := bucket.UploadIfAbsent(t.Context(), b, "new", strings.NewReader("x")); err != nil {
		t.Errorf("upload under a free name: %v", err)
	}
	if err := bucket.Check(t.Context(), b); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := bucket.DeleteAll(t.Context(), b, []string{"a", "z"}); err != nil {
		t.Errorf("delete all: %v", err)
	}
}

func TestMetricsTellFailuresFromAnswers(t *testing.T) {
	reg := prometheus.NewRegistry()
	dir := t.TempDir()
	b, err := bucket.Open(t.Context(), bucket.Options{Config: "type: FILESYSTEM\nconfig: {directory: " + dir + "}"}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	v := b.(bucket.Versioned) //nolint:forcetypeassert // FILESYSTEM is
	ctx, enough := t.Context(), errors.New("enough")
	_, _ = b.Get(ctx, "absent")                                                  // an answer
	_, _ = b.Get(ctx, "../outside")                                              // a failure
	_ = b.Upload(ctx, "x", strings.NewReader("12345"))                           // 5 bytes
	_, _ = v.PutIfAbsent(ctx, "x", strings.NewReader("1"))                       // an answer
	_, _ = v.PutIfMatch(ctx, "x", []byte("1"), "other")                          // an answer
	_ = bucket.List(ctx, b, "", "", func(bucket.Object) error { return enough }) // the caller's own error
	if rc, err := b.GetRange(ctx, "x", 1, 2); err == nil {
		buf := make([]byte, 10)
		_, _ = rc.Read(buf)
		_ = rc.Close()
	}
	got := values(t, reg)
	for metric, want := range map[string]float64{
		"varve_objstore_bucket_operations_total get":                          2,
		"varve_objstore_bucket_operation_failures_total get":                  1,
		"varve_objstore_bucket_operations_total upload":                       1,
		"varve_objstore_bucket_operation_failures_total upload":               0,
		"varve_objstore_bucket_operation_transferred_bytes upload":            5,
		"varve_objstore_bucket_operation_transferred_bytes get_range":         2,
		"varve_objstore_bucket_operation_failures_total put_if_absent":        0,
		"varve_objstore_bucket_operation_failures_total put_if_match":         0,
		"varve_objstore_bucket_operations_total put_if_match":                 1,
		"varve_objstore_bucket_operation_failures_total list":                 0,
		"varve_objstore_bucket_operation_duration_seconds_count list":         1,
		"varve_objstore_bucket_operation_duration_seconds_count get_range":    1,
		"varve_objstore_bucket_operation_duration_seconds_count put_if_match": 0,
	} {
		if value, ok := got[metric]; !ok || value != want {
			t.Errorf("%s: got %v, %v, want %v", metric, value, ok, want)
		}
	}
	if got["varve_objstore_bucket_last_successful_upload_time "] == 0 {
		t.Error("varve_objstore_bucket_last_successful_upload_time: got 0, want now")
	}
	if err := b.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// values returns all metrics by name and operation; histograms by their sum, and
// with _count their count.
func values(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			operation := ""
			for _, l := range m.GetLabel() {
				if l.GetName() == "operation" {
					operation = l.GetValue()
				}
			}
			key := " " + operation
			all[f.GetName()+key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
			all[f.GetName()+"_count"+key] = float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}
