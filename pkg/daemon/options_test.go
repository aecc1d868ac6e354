package daemon

import (
	"math"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestOptionsFromFlags(t *testing.T) {
	o := parsed(t, "--log.format=journald", "--http-grace-period=1s", "--grpc-grace-period=2s",
		"--grpc-server-tls-ciphers=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
		"--grpc-server-tls-curves=X25519", "--grpc-server-tls-curves=CurveP256", "--enable-auto-gomemlimit")
	if o.HTTPGrace != time.Second || o.GRPC.Grace != 2*time.Second || !o.AutoMemLimit || len(o.GRPC.Ciphers) != 2 || len(o.GRPC.Curves) != 2 {
		t.Errorf("got %+v", o)
	}
	if err := o.Validate(); err != nil {
		t.Errorf("validate: %v", err)
	}
	if o := Defaults(); o.HTTPAddress != "0.0.0.0:10902" || o.GRPC.Address != "" || o.Validate() != nil {
		t.Errorf("defaults are %+v, %v", o, o.Validate())
	}
}

func TestOptionsThatContradict(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"a certificate without key":   {func(o *Options) { o.GRPC.Cert = "a" }, "--grpc-server-tls-cert and --grpc-server-tls-key need each other"},
		"a client CA without TLS":     {func(o *Options) { o.GRPC.ClientCA = "a" }, "--grpc-server-tls-client-ca needs"},
		"an unknown curve":            {func(o *Options) { o.GRPC.Curves = []string{"X1"} }, `--grpc-server-tls-curves: "X1" is none of CurveP256`},
		"an unknown cipher":           {func(o *Options) { o.GRPC.Ciphers = []string{"ROT13"} }, `--grpc-server-tls-ciphers: "ROT13" is none of TLS_`},
		"an unknown TLS version":      {func(o *Options) { o.GRPC.MinVersion = "2" }, `--grpc-server-tls-min-version: "2" is none of 1.0, 1.1, 1.2, 1.3`},
		"no HTTP address":             {func(o *Options) { o.HTTPAddress = "" }, "--http-address is empty"},
		"a memory share above one":    {func(o *Options) { o.MemLimitRatio = 1.5 }, "--auto-gomemlimit.ratio=1.5"},
		"a memory share of no number": {func(o *Options) { o.MemLimitRatio = math.NaN() }, "--auto-gomemlimit.ratio=NaN"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Defaults()
			o.GRPC = GRPCDefaults()
			tc.change(&o)
			if err := o.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestMemoryLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		file, content string
		want          int64
		found         bool
	}{
		"a limit in bytes":    {"memory.max", "1073741824\n", 1 << 30, true},
		"no limit":            {"memory.max", "max\n", 0, false},
		"version 1":           {"memory/memory.limit_in_bytes", "536870912\n", 1 << 29, true},
		"version 1, no limit": {"memory/memory.limit_in_bytes", "9223372036854771712\n", 0, false},
		"no memory cgroup":    {"cgroup.procs", "", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.MapFS{"sys/fs/cgroup/" + tc.file: &fstest.MapFile{Data: []byte(tc.content)}}
			if got, found := memoryLimit(root); found != tc.found || found && got != tc.want {
				t.Errorf("got %d, %v, want %d, %v", got, found, tc.want, tc.found)
			}
		})
	}
}
