package query

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/storeapi"
)

// dns is a resolver whose answers a test sets; a name without one is a time-out.
type dns struct {
	hosts map[string][]string
	srv   map[string][]*net.SRV
}

var errTimeout = &net.DNSError{Err: "i/o timeout", IsTimeout: true}

func (d *dns) LookupNetIP(_ context.Context, network, host string) (out []netip.Addr, err error) {
	ips, ok := d.hosts[host]
	if !ok {
		return nil, errTimeout
	}
	for _, ip := range ips {
		addr := netip.MustParseAddr(ip)
		if network == "ip" || (network == "ip4") == addr.Is4() {
			out = append(out, addr)
		}
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return out, nil
}

func (d *dns) LookupSRV(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
	records, ok := d.srv[name]
	if !ok {
		return "", nil, errTimeout
	}
	return name, records, nil
}

func TestResolve(t *testing.T) {
	d := &dns{
		hosts: map[string][]string{"store": {"10.0.0.2", "10.0.0.1"}, "dual": {"10.0.0.3", "fd00::1"}, "six": {"fd00::2"}, "pod.": {"10.0.0.4"}, "none": {}},
		srv:   map[string][]*net.SRV{"_grpc._tcp.s": {{Target: "pod.", Port: 10901}}},
	}
	for address, want := range map[string]string{
		"store:10901":              "store:10901",
		"dns+store:10901":          "10.0.0.1:10901 10.0.0.2:10901",
		"dns+dual:1":               "10.0.0.3:1",
		"dnsdualstack+dual:1":      "10.0.0.3:1 [fd00::1]:1",
		"dns+six:1":                "[fd00::2]:1",
		"dnssrv+_grpc._tcp.s":      "10.0.0.4:10901",
		"dnssrvnoa+_grpc._tcp.s":   "pod:10901",
		"dns+none:1":               "",
		"dns+store":                "error",
		"dns+nobody:1":             "error",
		"dnssrv+_grpc._tcp.nobody": "error",
	} {
		found, err := resolve(t.Context(), d, address)
		got := strings.Join(found, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s: got %q (%v), want %q", address, got, err, want)
		}
	}
}

// process is what stands behind an address.
type process struct {
	storeapi.Store
	info   storeapi.Info
	err    error
	closed bool
}

func (p *process) Info(context.Context) (storeapi.Info, error) { return p.info, p.err }

func (p *process) Close() error {
	p.closed = true
	return nil
}

// network is the processes by address.
type network map[string]*process

func (n network) connect(address string) (Peer, error) {
	if n[address] == nil {
		n[address] = &process{err: errors.New("connection refused")}
	}
	return n[address], nil
}

func sidecar(replica string) *process {
	return &process{info: storeapi.Info{Component: "sidecar", APIs: storeapi.StoreAPI, LabelSets: []labels.Labels{labels.FromStrings("replica", replica)}}}
}

// look refreshes the endpoints and describes them as "up a b; missing c".
func look(t *testing.T, e *Endpoints) string {
	t.Helper()
	if err := e.Refresh(t.Context()); err != nil {
		t.Fatalf("refresh: %v", err)
	}
	ups, missing := e.Members()
	parts := []string{"up"}
	for _, m := range ups {
		parts = append(parts, m.Address)
	}
	if len(missing) > 0 {
		parts[len(parts)-1] += ";"
		parts = append(parts, "missing")
	}
	for _, m := range missing {
		parts = append(parts, m.Address)
	}
	return strings.Join(parts, " ")
}

// chapter is a part of a story: what changes, how much time passes, and what is known then.
type chapter struct {
	title  string
	change func(*dns, network)
	after  time.Duration
	want   string
	ready  bool
}

func TestEndpointsComeAndGo(t *testing.T) {
	same := func(*dns, network) {}
	for name, story := range map[string][]chapter{
		"a sidecar dies and leaves after five minutes": {
			{"it answers", func(d *dns, n network) { d.hosts["s"] = []string{"10.0.0.1"}; n["10.0.0.1:1"] = sidecar("a") }, 0, "up 10.0.0.1:1", true},
			{"it dies", func(_ *dns, n network) { n["10.0.0.1:1"].err = errors.New("reset") }, 5 * time.Second, "up; missing 10.0.0.1:1", true},
			{"it is still missed", same, 4 * time.Minute, "up; missing 10.0.0.1:1", true},
			{"it has left", same, time.Minute, "up", true},
			{"it is back", func(_ *dns, n network) { n["10.0.0.1:1"].err = nil }, time.Hour, "up 10.0.0.1:1", true},
		},
		"a name that does not resolve keeps the process unready": {
			{"DNS is silent", same, 0, "up; missing dns+s:1", false},
			{"DNS is silent for an hour", same, time.Hour, "up; missing dns+s:1", false},
			{"DNS answers", func(d *dns, n network) { d.hosts["s"] = []string{"10.0.0.1"}; n["10.0.0.1:1"] = sidecar("a") }, 5 * time.Second, "up 10.0.0.1:1", true},
		},
		"DNS goes away and its last answer stays": {
			{"DNS answers", func(d *dns, n network) { d.hosts["s"] = []string{"10.0.0.1"}; n["10.0.0.1:1"] = sidecar("a") }, 0, "up 10.0.0.1:1", true},
			{"DNS is silent", func(d *dns, _ network) { delete(d.hosts, "s") }, time.Hour, "up 10.0.0.1:1", true},
		},
		"a name that stands for nothing is said for five minutes": {
			{"nothing", func(d *dns, _ network) { d.hosts["s"] = nil }, 0, "up; missing dns+s:1", true},
			{"still nothing", same, 6 * time.Minute, "up", true},
		},
		"a pod that vanishes from DNS is missed, until its successor has the same data": {
			{"the first pod", func(d *dns, n network) { d.hosts["s"] = []string{"10.0.0.1"}; n["10.0.0.1:1"] = sidecar("a") }, 0, "up 10.0.0.1:1", true},
			{"it crashes and is taken out of DNS", func(d *dns, n network) { d.hosts["s"] = nil; n["10.0.0.1:1"].err = errors.New("reset") }, 31 * time.Second, "up; missing 10.0.0.1:1 dns+s:1", true},
			{"its successor", func(d *dns, n network) { d.hosts["s"] = []string{"10.0.0.2"}; n["10.0.0.2:1"] = sidecar("a") }, 31 * time.Second, "up 10.0.0.2:1", true},
			{"the first pod's connection is closed", same, 6 * time.Minute, "up 10.0.0.2:1", true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, n := &dns{hosts: map[string][]string{}}, network{}
				o := DefaultEndpointOptions()
				o.Addresses = []string{"dns+s:1"}
				e := NewEndpoints(o, n.connect, d, promslog.NewNopLogger(), prometheus.NewRegistry())
				for _, c := range story {
					c.change(d, n)
					// Time passes in rounds, as it does in the process.
					for range c.after / (5 * time.Second) {
						<-time.After(5 * time.Second)
						look(t, e)
					}
					if got := look(t, e); got != c.want {
						t.Errorf("%s: got %q, want %q", c.title, got, c.want)
					}
					if err := e.Ready(); (err == nil) != c.ready {
						t.Errorf("%s: got readiness %v, want %v", c.title, err, c.ready)
					}
				}
				if err := e.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				for _, address := range slices.Sorted(maps.Keys(n)) {
					if !n[address].closed {
						t.Errorf("the connection to %s is still open", address)
					}
				}
			})
		})
	}
}

func TestStrictEndpointsNeverLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := DefaultEndpointOptions()
		o.Addresses, o.Strict = []string{"a:1"}, []string{"b:1"}
		e := NewEndpoints(o, network{}.connect, &dns{}, promslog.NewNopLogger(), prometheus.NewRegistry())
		if got := look(t, e); got != "up; missing a:1 b:1" {
			t.Errorf("at first: got %q", got)
		}
		<-time.After(time.Hour)
		if got := look(t, e); got != "up; missing b:1" {
			t.Errorf("after an hour: got %q, want the strict one still missed", got)
		}
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}
