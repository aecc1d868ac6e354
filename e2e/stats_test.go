package e2e

import (
	"encoding/json"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// fetched is an entry of stats.fanout in the answer to a query.
type fetched struct {
	Endpoint string `json:"endpointAddr"`
	Bytes    int64  `json:"bytesProcessed"`
	Series   int    `json:"series"`
	Chunks   int    `json:"chunks"`
	Selector string `json:"selector"`
	Work     *struct {
		Blocks  []string  `json:"blocks"`
		Touched int       `json:"seriesTouched"`
		Stages  []stageOf `json:"stages"`
	} `json:"work"`
}

type stageOf struct {
	Name     string `json:"name"`
	Duration string `json:"duration"`
	Ranges   int64  `json:"ranges"`
	Needed   int64  `json:"bytesNeeded"`
	Requests int64  `json:"bucketRequests"`
	Fetched  int64  `json:"bytesFetched"`
}

// TestAQuerySaysWhatItsStoresDid has two stores, each with the blocks of one replica.
func TestAQuerySaysWhatItsStoresDid(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	config := s3.ObjstoreConfig(bucketName)
	end := twoWeeks(time.Now())
	processes := history.Processes(6)
	lay(ctx, t, bucketOf(s3, bucketName), pair(nil, nil), history.Options{
		Start: end.Add(-6 * time.Hour), End: end, Interval: time.Minute, BlockRange: 2 * time.Hour, Processes: processes,
	})
	blocksOf := map[string][]string{} // by replica
	for _, m := range blocks(ctx, t, bucketOf(s3, bucketName)) {
		replica := m.Thanos.Labels["prometheus_replica"]
		blocksOf[replica] = append(blocksOf[replica], m.ULID)
	}
	replicas := map[string]string{} // by the address of the store
	var stores []string
	for _, replica := range []string{"a", "b"} {
		store := must(c.Store(ctx, "store-"+replica, config,
			"--selector.relabel-config=[{action: keep, source_labels: [prometheus_replica], regex: "+replica+"}]"))(t)
		replicas[store.GRPC] = replica
		stores = append(stores, store.GRPC)
	}
	api := must(c.Query(ctx, "query", stores))(t).API().With("stats", "true")

	// All blocks are read, for nobody asked before.
	answer := must(api.Get(ctx, "/api/v1/query", url.Values{
		"query": {`sum(count_over_time({__name__=~"demo_.*"}[6h]))`}, "time": {strconv.FormatInt(end.Unix()-1, 10)},
	}))(t)
	var data struct {
		Stats struct{ Fanout []fetched }
	}
	if err := json.Unmarshal(answer.Data, &data); err != nil || len(answer.Warnings) > 0 {
		t.Fatalf("answer %s: %v, warnings %q", answer.Data, err, answer.Warnings)
	}
	fanout := data.Stats.Fanout
	if len(fanout) != 2 || fanout[0].Endpoint == fanout[1].Endpoint {
		t.Fatalf("fanout: got %+v, want an entry for each of %q", fanout, stores)
	}
	for _, f := range fanout {
		replica, known := replicas[f.Endpoint]
		if !known || f.Selector != `{__name__=~"demo_.*"}` || f.Series != len(processes) || f.Chunks < f.Series || f.Bytes == 0 {
			t.Errorf("fanout: got %+v, want one of %q with %d series", f, stores, len(processes))
		}
		if f.Work == nil {
			t.Errorf("%s says nothing of its work", f.Endpoint)
			continue
		}
		slices.Sort(f.Work.Blocks)
		slices.Sort(blocksOf[replica])
		if !reflect.DeepEqual(f.Work.Blocks, blocksOf[replica]) || f.Work.Touched != len(f.Work.Blocks)*len(processes) {
			t.Errorf("store of replica %s: got %d series in blocks %q, want %d in each of %q",
				replica, f.Work.Touched, f.Work.Blocks, len(processes), blocksOf[replica])
		}
		checkStages(t, "store of replica "+replica, f.Work.Stages)
	}
}

// checkStages looks whether stages that nothing was cached for read what they are for.
func checkStages(t *testing.T, of string, stages []stageOf) {
	t.Helper()
	var names []string
	for _, s := range stages {
		names = append(names, s.Name)
		if took, err := time.ParseDuration(s.Duration); err != nil || took < 0 {
			t.Errorf("%s: stage %s took %q (%v)", of, s.Name, s.Duration, err)
		}
		reads := s.Name == "select" || s.Name == "entries" || s.Name == "chunks"
		if read := s.Ranges > 0 && s.Needed > 0; read != reads {
			t.Errorf("%s: stage %s read %d ranges of %d bytes", of, s.Name, s.Ranges, s.Needed)
		}
		if s.Name == "chunks" && (s.Requests == 0 || s.Fetched < s.Needed) { // of an index parts may be there by now
			t.Errorf("%s: %d requests brought %d bytes of chunks, want all of %d", of, s.Requests, s.Fetched, s.Needed)
		}
	}
	if want := []string{"turn", "select", "entries", "chunks", "wait", "send"}; !reflect.DeepEqual(names, want) {
		t.Errorf("%s: got stages %q, want %q", of, names, want)
	}
}
