package blockview_test

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockview"
)

// A viewer made for Thanos finds status, data.label, data.blocks and data.refreshedAt.
func TestTheAnswerHasThanosShape(t *testing.T) {
	a, b := &block.Meta{ULID: ulid.ULID{1}, MaxTime: 1, Version: 1}, &block.Meta{ULID: ulid.ULID{2}, MaxTime: 1, Version: 1}
	b.Compaction.Sources = []ulid.ULID{{1}, {3}}
	set := &block.Set{
		Listed: time.Unix(7, 0).UTC(),
		Blocks: []*block.Entry{
			{Meta: a, Objects: map[string]int64{"index": 3, "meta.json": 4}, NoCompact: &block.Mark{Kind: block.NoCompactMark, Reason: "manual", Details: "why", Time: 5}},
			{Meta: b, Deletion: nil},
		},
	}
	rec := httptest.NewRecorder()
	if err := blockview.Answer(rec, blockview.OfSet(set)); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Status string
		Data   struct {
			Label       *string
			Blocks      []*block.Meta
			RefreshedAt time.Time
			States      map[string]blockview.State
		}
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	d := got.Data
	if got.Status != "success" || d.Label == nil || len(d.Blocks) != 2 || d.Blocks[0].ULID != a.ULID || !d.RefreshedAt.Equal(set.Listed) {
		t.Errorf("got %s", rec.Body)
	}
	s := d.States[a.ULID.String()]
	if s.Bytes != 7 || s.SupersededBy == nil || *s.SupersededBy != b.ULID || s.Marks[block.NoCompactMark].Details != "why" {
		t.Errorf("state: got %+v", s)
	}
	if !strings.Contains(rec.Header().Get("Content-Type"), "json") {
		t.Errorf("got content type %q", rec.Header().Get("Content-Type"))
	}
}
