package store

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/varve-io/varve/pkg/blockview"
	"github.com/varve-io/varve/pkg/bucket"
)

func TestBlocksAreServedAsJSON(t *testing.T) {
	bkt := bucket.NewMemory()
	second, first := add(t, bkt, ups(1, hour, 2*hour, 1)), add(t, bkt, ups(1, 0, hour, 1))
	g := open(t, bkt, nil, second, first)
	type answer struct {
		Status string
		Data   blockview.Blocks
	}
	read := func() (a answer) {
		t.Helper()
		rec := httptest.NewRecorder()
		g.ServeBlocks(rec, httptest.NewRequest(http.MethodGet, "/api/v1/blocks", nil))
		if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil || rec.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %v", rec.Body, err)
		}
		return a
	}
	a := read()
	if a.Status != "success" || len(a.Data.Blocks) != 2 || a.Data.RefreshedAt == nil {
		t.Fatalf("answer is %+v, want two blocks", a)
	}
	for i, want := range []string{first.Meta.ULID.String(), second.Meta.ULID.String()} {
		if got := a.Data.Blocks[i]; got.ULID.String() != want || got.Thanos.Labels["cluster"] != "eu" {
			t.Errorf("block %d is %+v, want %s", i, got, want)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if a := read(); a.Data.Err == "" || len(a.Data.Blocks) != 0 {
		t.Errorf("after the end: %+v, want an error", a)
	}
}
