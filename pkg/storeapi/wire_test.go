package storeapi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// raw builds a message field by field, knowing nothing of the .proto files.
type raw []byte

func (r raw) num(field protowire.Number, v uint64) raw {
	return protowire.AppendVarint(protowire.AppendTag(r, field, protowire.VarintType), v)
}

func (r raw) str(field protowire.Number, v string) raw {
	return protowire.AppendString(protowire.AppendTag(r, field, protowire.BytesType), v)
}

func (r raw) msg(field protowire.Number, v raw) raw { return r.str(field, string(v)) }

// messages are the main messages as bytes built by hand beside their generated
// form; the numbers here come from docs/format/wire.md.
func messages() map[string]struct {
	bytes raw
	msg   proto.Message
} {
	label := raw{}.str(1, "job").str(2, "x")
	chunk := raw{}.num(1, 1).str(2, "\x00\x01data").num(3, 77)
	aggr := raw{}.num(1, 10).num(2, 20)
	pbLabel := func() *storepb.Label { return &storepb.Label{Name: "job", Value: "x"} }
	pbChunk := func() *storepb.Chunk {
		return &storepb.Chunk{Type: storepb.Chunk_HISTOGRAM, Data: []byte("\x00\x01data"), Hash: 77}
	}
	series := raw{}.msg(1, label).msg(2, aggr.msg(3, chunk))
	pbSeries := func() *storepb.Series {
		return &storepb.Series{Labels: []*storepb.Label{pbLabel()}, Chunks: []*storepb.AggrChunk{{MinTime: 10, MaxTime: 20, Raw: pbChunk()}}}
	}
	matcher := raw{}.num(1, 2).str(2, "job").str(3, "x.*")
	pbMatchers := []*storepb.LabelMatcher{{Type: storepb.LabelMatcher_RE, Name: "job", Value: "x.*"}}
	hints := &anypb.Any{TypeUrl: "type.googleapis.com/hintspb.SeriesRequestHints", Value: raw{}.msg(1, matcher).num(2, 1)}
	anyHints := raw{}.str(1, hints.TypeUrl).str(2, string(hints.Value))
	set := raw{}.msg(1, label)
	pbSet := &storepb.LabelSet{Labels: []*storepb.Label{pbLabel()}}

	return map[string]struct {
		bytes raw
		msg   proto.Message
	}{
		"SeriesRequest": {
			raw{}.num(1, 1000).num(2, 2000).msg(3, matcher).num(4, 300_000).str(5, "\x01\x05").num(6, 1).num(7, 1).num(8, 1).
				msg(9, anyHints).num(10, 15).num(11, 60).
				msg(12, raw{}.num(1, 15).msg(2, raw{}.str(1, "rate")).msg(4, raw{}.num(1, 1).str(3, "job")).msg(5, raw{}.num(1, 60)).str(6, "pod").num(7, 1).str(8, "hash")).
				msg(13, raw{}.num(1, 1).num(2, 3).num(3, 1).str(4, "job")).str(14, "replica").num(15, 5).num(16, 64).num(10001, 1).num(10002, 3_600_000),
			&storepb.SeriesRequest{
				MinTime: 1000, MaxTime: 2000, Matchers: pbMatchers, MaxResolutionWindow: 300_000,
				Aggregates:              []storepb.Aggr{storepb.Aggr_COUNT, storepb.Aggr_COUNTER},
				PartialResponseDisabled: true, PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT, SkipChunks: true,
				Hints: hints, Step: 15, Range: 60,
				QueryHints: &storepb.QueryHints{
					StepMillis: 15, Func: &storepb.Func{Name: "rate"}, Grouping: &storepb.Grouping{By: true, Labels: []string{"job"}},
					Range: &storepb.Range{Millis: 60}, ProjectionLabels: []string{"pod"}, ProjectionInclude: true, SeriesHashLabelName: "hash",
				},
				ShardInfo:            &storepb.ShardInfo{ShardIndex: 1, TotalShards: 3, By: true, Labels: []string{"job"}},
				WithoutReplicaLabels: []string{"replica"}, Limit: 5, ResponseBatchSize: 64, VarveNative: true, VarveFallbackResolution: 3_600_000,
			},
		},
		"SeriesResponse, series":  {raw{}.msg(1, series), &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Series{Series: pbSeries()}}},
		"SeriesResponse, warning": {raw{}.str(2, "careful"), &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Warning{Warning: "careful"}}},
		"SeriesResponse, hints":   {raw{}.msg(3, anyHints), &storepb.SeriesResponse{Result: &storepb.SeriesResponse_Hints{Hints: hints}}},
		"SeriesResponse, batch": {
			raw{}.msg(4, raw{}.msg(1, series).msg(1, series)),
			&storepb.SeriesResponse{Result: &storepb.SeriesResponse_Batch{Batch: &storepb.SeriesBatch{Series: []*storepb.Series{pbSeries(), pbSeries()}}}},
		},
		"AggrChunk, every field": {
			aggr.msg(3, chunk).msg(4, chunk).msg(5, chunk).msg(6, chunk).msg(7, chunk).msg(8, chunk).num(10001, 300_000),
			&storepb.AggrChunk{
				MinTime: 10, MaxTime: 20, Raw: pbChunk(), Count: pbChunk(), Sum: pbChunk(), Min: pbChunk(), Max: pbChunk(), Counter: pbChunk(),
				VarveResolution: 300_000,
			},
		},
		"Series and Chunk, our fields": {
			raw{}.msg(2, raw{}.msg(3, raw{}.num(10001, 4))).str(10001, "a\xffb"),
			&storepb.Series{Chunks: []*storepb.AggrChunk{{Raw: &storepb.Chunk{VarveEncoding: 4}}}, VarveReplica: []byte("a\xffb")},
		},
		"LabelNamesRequest": {
			raw{}.num(1, 1).num(2, 1).num(3, 1000).num(4, 2000).msg(5, anyHints).msg(6, matcher).str(7, "replica").num(8, 5),
			&storepb.LabelNamesRequest{
				PartialResponseDisabled: true, PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT, Start: 1000, End: 2000,
				Hints: hints, Matchers: pbMatchers, WithoutReplicaLabels: []string{"replica"}, Limit: 5,
			},
		},
		"LabelNamesResponse": {
			raw{}.str(1, "job").str(2, "careful").msg(3, anyHints),
			&storepb.LabelNamesResponse{Names: []string{"job"}, Warnings: []string{"careful"}, Hints: hints},
		},
		"LabelValuesRequest": {
			raw{}.str(1, "job").num(2, 1).num(3, 1).num(4, 1000).num(5, 2000).msg(6, anyHints).msg(7, matcher).str(8, "replica").num(9, 5),
			&storepb.LabelValuesRequest{
				Label: "job", PartialResponseDisabled: true, PartialResponseStrategy: storepb.PartialResponseStrategy_ABORT, Start: 1000, End: 2000,
				Hints: hints, Matchers: pbMatchers, WithoutReplicaLabels: []string{"replica"}, Limit: 5,
			},
		},
		"LabelValuesResponse": {
			raw{}.str(1, "x").str(2, "careful").msg(3, anyHints),
			&storepb.LabelValuesResponse{Values: []string{"x"}, Warnings: []string{"careful"}, Hints: hints},
		},
		"InfoResponse": {
			raw{}.msg(1, set).str(2, "sidecar").
				msg(3, raw{}.num(1, 1000).num(2, 2000).num(3, 1).num(5, 1).msg(6, raw{}.msg(1, set).num(2, 1000).num(3, 2000)).num(7, 1)).
				msg(4, nil).msg(5, nil).msg(6, nil).msg(7, raw{}.num(1, 1000).num(2, 2000)).msg(8, nil).msg(9, nil).
				msg(10001, raw{}.num(1, 1).str(2, "0.1.0")),
			&storepb.InfoResponse{
				LabelSets: []*storepb.LabelSet{pbSet}, ComponentType: "sidecar",
				Store: &storepb.StoreInfo{
					MinTime: 1000, MaxTime: 2000, SupportsSharding: true, SupportsWithoutReplicaLabels: true,
					TsdbInfos: []*storepb.TSDBInfo{{Labels: pbSet, MinTime: 1000, MaxTime: 2000}}, SupportsProjections: true,
				},
				Rules: &storepb.RulesInfo{}, MetricMetadata: &storepb.MetricMetadataInfo{}, Targets: &storepb.TargetsInfo{},
				Exemplars: &storepb.ExemplarsInfo{MinTime: 1000, MaxTime: 2000}, Query: &storepb.QueryAPIInfo{}, Status: &storepb.StatusInfo{},
				Varve: &storepb.VarveInfo{Native: true, Version: "0.1.0"},
			},
		},
	}
}

func TestMessagesAreTheBytesThatPeersKnow(t *testing.T) {
	c := newCodec()
	for name, tc := range messages() {
		t.Run(name, func(t *testing.T) {
			for kind, marshal := range map[string]func() (mem.BufferSlice, error){
				"this package's codec": func() (mem.BufferSlice, error) { return c.Marshal(tc.msg) },
				"the standard codec":   func() (mem.BufferSlice, error) { return c.plain.Marshal(tc.msg) },
			} {
				got, err := marshal()
				if err != nil {
					t.Fatalf("marshal with %s: %v", kind, err)
				}
				if b := got.Materialize(); !bytes.Equal(b, tc.bytes) {
					t.Errorf("%s writes\n%swant\n%s", kind, hex.Dump(b), hex.Dump(tc.bytes))
				}
			}
			got := tc.msg.ProtoReflect().New().Interface()
			if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(tc.bytes)}, got); err != nil {
				t.Fatalf("unmarshal: %v", err)
			}
			if !proto.Equal(got, tc.msg) {
				t.Errorf("unmarshal: got %v, want %v", got, tc.msg)
			}
		})
	}
}

// The file names every message, field, number and type, so that a change is seen
// in review.
func TestFieldNumbers(t *testing.T) {
	var b strings.Builder
	for _, file := range []protoreflect.FileDescriptor{
		storepb.File_storeapi_storepb_types_proto, storepb.File_storeapi_storepb_rpc_proto,
		storepb.File_storeapi_storepb_info_proto, storepb.File_storeapi_storepb_hints_proto,
	} {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				m := file.Services().Get(i).Methods().Get(j)
				fmt.Fprintf(&b, "%s(%s) %s\n", m.FullName(), m.Input().FullName(), m.Output().FullName())
			}
		}
		for i := range file.Enums().Len() {
			describeEnum(&b, file.Enums().Get(i))
		}
		for i := range file.Messages().Len() {
			describe(&b, file.Messages().Get(i))
		}
	}
	golden.Check(t, "testdata/fields.golden", b.String())
}

func describe(b *strings.Builder, m protoreflect.MessageDescriptor) {
	fmt.Fprintf(b, "%s\n", m.FullName())
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		kind := f.Kind().String()
		if f.Message() != nil {
			kind = string(f.Message().FullName())
		}
		fmt.Fprintf(b, "  %d %s %s %s\n", f.Number(), f.Cardinality(), kind, f.Name())
	}
	for i := range m.Enums().Len() {
		describeEnum(b, m.Enums().Get(i))
	}
}

func describeEnum(b *strings.Builder, e protoreflect.EnumDescriptor) {
	fmt.Fprintf(b, "%s", e.FullName())
	for i := range e.Values().Len() {
		fmt.Fprintf(b, " %s=%d", e.Values().Get(i).Name(), e.Values().Get(i).Number())
	}
	b.WriteByte('\n')
}
