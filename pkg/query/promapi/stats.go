package promapi

import (
	"github.com/prometheus/prometheus/util/stats"

	"github.com/varve-io/varve/pkg/query"
)

// queryStats is the field stats of an answer: Prometheus', and what each endpoint did.
type queryStats struct {
	stats.BuiltinStats
	Fanout []fetch `json:"fanout"`
}

// fetch is what one endpoint did for one selector. The first fields are called as
// Thanos calls them in its analysis.
type fetch struct {
	Endpoint string `json:"endpointAddr"`
	Duration string `json:"duration"`
	Bytes    int64  `json:"bytesProcessed"`
	Series   int64  `json:"series"`
	Chunks   int64  `json:"chunks"`
	Selector string `json:"selector"`
	Work     *work  `json:"work,omitempty"`
}

// work is what an endpoint says of itself.
type work struct {
	Blocks  []string `json:"blocks"`
	Touched int64    `json:"seriesTouched"`
	Stages  []stage  `json:"stages"`
}

// stage is a part of the work. All but the first two fields are left out if nothing was read.
type stage struct {
	Name       string `json:"name"`
	Duration   string `json:"duration"`
	Ranges     int64  `json:"ranges,omitempty"`
	Needed     int64  `json:"bytesNeeded,omitempty"`
	FromMemory int64  `json:"bytesFromMemory,omitempty"`
	FromDisk   int64  `json:"bytesFromDisk,omitempty"`
	FromRemote int64  `json:"bytesFromSharedCache,omitempty"`
	Shared     int64  `json:"bytesFromOtherRequests,omitempty"`
	Requests   int64  `json:"bucketRequests,omitempty"`
	Fetched    int64  `json:"bytesFetched,omitempty"`
}

func fanout(all []query.Fetch) []fetch {
	out := make([]fetch, len(all))
	for i, f := range all {
		out[i] = fetch{f.Endpoint, f.Took.String(), f.Bytes, f.Series, f.Chunks, f.Selector, workOf(f.Stats)}
	}
	return out
}

func workOf(s *query.Work) *work {
	if s == nil {
		return nil
	}
	w := &work{Blocks: s.Blocks, Touched: s.Touched, Stages: []stage{}}
	for _, st := range s.Stages {
		w.Stages = append(w.Stages, stage{
			st.Name, st.Took.String(), st.Ranges, st.Needed, st.FromMemory, st.FromDisk, st.FromRemote, st.Shared, st.Requests, st.Fetched,
		})
	}
	return w
}
