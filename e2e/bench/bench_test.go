package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestATinyRun runs every group over next to no data. The program itself compares
// all answers with the truth.
func TestATinyRun(t *testing.T) {
	t.Setenv(peerVariable, "")
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	err := run(ctx, []string{
		"-cache", t.TempDir(), "-series=120", "-hours=4", "-blocks=6",
		"-hostile=8", "-hostile-at-once=4", "-questions=12", "-patience=1s", "-deadline=1m",
	}, &out, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	for _, want := range []string{
		"2 h blocks: start + 20 series, cold", "2 h blocks: start + 24 % × 4 h, cold", "2 h blocks: 20 series, again", "2 h blocks: restart", "2 h blocks: nine questions",
		"2 d block: 24 % × 4 h, cold", "huge: everything", "6 blocks: restart, counted", "hostile: 8 requests", "process: running",
		"faults: varve: 12 questions",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
}

func TestFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // part of the error
	}{
		"all by default":      {},
		"some groups":         {args: []string{"-only=raw,faults"}},
		"a group that is not": {args: []string{"-only=cooked"}, want: "cooked"},
		"no runs":             {args: []string{"-runs=0"}, want: "-runs"},
		"odd hours":           {args: []string{"-hours=5"}, want: "-hours"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(tc.args, io.Discard)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
	if err := run(t.Context(), []string{"-help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want %v", err, flag.ErrHelp)
	}
}

// behind starts a proxy in front of a server that answers every read with ten bytes.
func behind(t *testing.T, d distance) (*proxy, *http.Client) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789") }))
	t.Cleanup(server.Close)
	p, err := newProxy(server.Listener.Addr().String(), d)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(func() {
		client.CloseIdleConnections()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p, client
}

// read gives what is read of an object.
func read(ctx context.Context, p *proxy, client *http.Client, method, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+p.Endpoint+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func TestTheProxyCountsByKind(t *testing.T) {
	p, client := behind(t, distance{})
	for _, r := range []struct{ method, path string }{
		{"GET", "/bucket?list-type=2"},
		{"GET", "/bucket/a/index"},
		{"GET", "/bucket/a/chunks/000001"},
		{"GET", "/bucket/b/index"},
		{"HEAD", "/bucket/a/index"},
		{"PUT", "/bucket/a/meta.json"},
	} {
		if _, _, err := read(t.Context(), p, client, r.method, r.path); err != nil {
			t.Fatalf("%s %s: %v", r.method, r.path, err)
		}
	}
	// The proxy books a request after its answer is through.
	var got traffic
	for got.requests() < 6 && t.Context().Err() == nil {
		more := p.take()
		got.gets, got.lists, got.heads, got.others = got.gets+more.gets, got.lists+more.lists, got.heads+more.heads, got.others+more.others
		got.bytes += more.bytes
	}
	if got.gets != 3 || got.lists != 1 || got.heads != 1 || got.others != 1 || got.bytes != 50 {
		t.Errorf("got %+v, want 3 reads, 1 listing, 1 head, 1 other and 50 bytes", got)
	}
}

func TestTheProxyBreaksReadsAlone(t *testing.T) {
	p, client := behind(t, distance{})
	p.breakReads(faults{refused: 1})
	if status, body, err := read(t.Context(), p, client, "GET", "/bucket/a/index"); err != nil || status != http.StatusServiceUnavailable || !strings.Contains(body, "SlowDown") {
		t.Errorf("refused: got %d, %q, %v", status, body, err)
	}
	if status, _, err := read(t.Context(), p, client, "GET", "/bucket?list-type=2"); err != nil || status != http.StatusOK {
		t.Errorf("a listing: got %d, %v, want it unharmed", status, err)
	}
	p.breakReads(faults{truncated: 1})
	if _, body, err := read(t.Context(), p, client, "GET", "/bucket/a/index"); !errors.Is(err, io.ErrUnexpectedEOF) || body != "01234" {
		t.Errorf("truncated: got %q, %v, want half of it and %v", body, err, io.ErrUnexpectedEOF)
	}
	p.breakReads(faults{hung: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := read(ctx, p, client, "GET", "/bucket/a/index"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hung: got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestAConnectionKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := pace{bytesPerSecond: 90e6}
		for range 900 {
			if err := p.wait(t.Context(), 100_000); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(began); got < time.Second-timerSlack || got > time.Second+timerSlack {
			t.Errorf("90 MB at 90 MB/s: got %s of the bubble's time", got)
		}
	})
}

func TestTripsAreReadsThatFollowEachOther(t *testing.T) {
	at := func(from, to int) request {
		return request{kind: kindGet, group: "a", began: time.Unix(int64(from), 0), ended: time.Unix(int64(to), 0)}
	}
	for name, tc := range map[string]struct {
		reads []request
		want  int
	}{
		"none":               {nil, 0},
		"side by side":       {[]request{at(0, 5), at(1, 4), at(2, 6)}, 1},
		"one by one":         {[]request{at(4, 5), at(0, 1), at(2, 3)}, 3},
		"two beside a third": {[]request{at(0, 9), at(0, 1), at(2, 3)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			var tr traffic
			for _, r := range tc.reads {
				tr.add(r)
			}
			if got := tr.trips(); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}
}

// part is a series with a chunk of samples of value v at the given times.
func part(t *testing.T, pod string, v float64, times ...int64) *storepb.Series {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range times {
		app.Append(0, at, v)
	}
	return &storepb.Series{
		Labels: []*storepb.Label{{Name: "__name__", Value: "up"}, {Name: "pod", Value: pod}},
		Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{Data: c.Bytes()}}},
	}
}

func TestAnswersAreComparedByTheirSamples(t *testing.T) {
	read := func(parts ...*storepb.Series) *answer {
		a := newAnswer()
		for _, p := range parts {
			if err := a.add(p, question{mint: 10, maxt: 90}); err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	truth := read(part(t, "a", 1, 10, 20, 30), part(t, "b", 1, 10, 20, 30))
	for name, tc := range map[string]struct {
		got  *answer
		want error
	}{
		"otherwise cut and sorted":      {read(part(t, "b", 1, 10), part(t, "b", 1, 20, 30), part(t, "a", 1, 10, 20, 30)), nil},
		"more outside the time":         {read(part(t, "a", 1, 5, 10, 20, 30, 91), part(t, "b", 1, 10, 20, 30)), nil},
		"a sample less":                 {read(part(t, "a", 1, 10, 20), part(t, "b", 1, 10, 20, 30)), errWrong},
		"a sample twice":                {read(part(t, "a", 1, 10, 20, 30), part(t, "b", 1, 10, 20, 30), part(t, "b", 1, 30)), errWrong},
		"another value":                 {read(part(t, "a", math.Nextafter(1, 2), 10, 20, 30), part(t, "b", 1, 10, 20, 30)), errWrong},
		"another time":                  {read(part(t, "a", 1, 10, 20, 31), part(t, "b", 1, 10, 20, 30)), errWrong},
		"samples of the other series":   {read(part(t, "a", 1, 10, 20, 30), part(t, "a", 1, 10, 20, 30)), errWrong},
		"a series more without samples": {read(part(t, "a", 1, 10, 20, 30), part(t, "b", 1, 10, 20, 30), part(t, "c", 1)), errWrong},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tc.got.same(truth); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAnAddressThatNobodyServes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.knows(t.Context(), time.Now()); err == nil {
		t.Error("got no error of a gateway that is not there")
	}
}
