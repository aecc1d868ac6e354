package promapi

import (
	"io"
	"net/http"
	"slices"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// maxAnnotations is how many warnings, and how many infos, an answer carries.
const maxAnnotations = 10

// answer is what an endpoint has to say.
type answer struct {
	data     any // writer, or what encoding/json understands
	warnings annotations.Annotations
	release  func()
}

func (a answer) close() {
	if a.release != nil {
		a.release()
	}
}

// writer writes itself as JSON.
type writer interface {
	writeJSON(s *jsoniter.Stream)
}

// flushEvery is how much JSON is gathered before it goes out.
const flushEvery = 64 << 10

// respond writes the envelope of a success, streaming the data.
func (a *API) respond(w http.ResponseWriter, expr string, ans answer) {
	warnings, infos := ans.warnings.AsStrings(expr, maxAnnotations, maxAnnotations)
	slices.Sort(warnings)
	slices.Sort(infos)
	w.Header().Set("Content-Type", "application/json")
	if len(warnings) > 0 {
		w.Header().Set("Cache-Control", "no-store")
	}
	s := newStream(w)
	s.WriteObjectStart()
	s.WriteObjectField("status")
	s.WriteString("success")
	if ans.data != nil {
		field(s, "data")
		if own, ok := ans.data.(writer); ok {
			own.writeJSON(s)
		} else {
			s.WriteVal(ans.data)
		}
	}
	writeStrings(s, "warnings", warnings)
	writeStrings(s, "infos", infos)
	s.WriteObjectEnd()
	a.finish(s)
}

// respondError writes the envelope of an error.
func (a *API) respondError(w http.ResponseWriter, e *apiError) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(e.kind.status())
	s := newStream(w)
	s.WriteObjectStart()
	s.WriteObjectField("status")
	s.WriteString("error")
	field(s, "errorType")
	s.WriteString(string(e.kind))
	field(s, "error")
	s.WriteString(e.Error())
	s.WriteObjectEnd()
	a.finish(s)
}

func newStream(w io.Writer) *jsoniter.Stream {
	return jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, w, flushEvery)
}

// finish sends what is left. The status line is gone by now, so an error can only be logged.
func (a *API) finish(s *jsoniter.Stream) {
	if err := s.Flush(); err != nil {
		a.log.Debug("answer not written", "err", err)
	}
}

func field(s *jsoniter.Stream, name string) {
	s.WriteMore()
	s.WriteObjectField(name)
}

func writeStrings(s *jsoniter.Stream, name string, texts []string) {
	if len(texts) == 0 {
		return
	}
	field(s, name)
	s.WriteVal(texts)
}

// queryData is the data of a query.
type queryData struct {
	value parser.Value
	stats any // nil: not asked for
}

func (q queryData) writeJSON(s *jsoniter.Stream) {
	s.WriteObjectStart()
	s.WriteObjectField("resultType")
	s.WriteString(string(q.value.Type()))
	field(s, "result")
	switch v := q.value.(type) {
	case promql.Matrix:
		writeList(s, len(v), func(i int) { writeSeries(s, v[i]) })
	case promql.Vector:
		writeList(s, len(v), func(i int) { writeSample(s, v[i]) })
	case promql.Scalar:
		s.WriteArrayStart()
		jsonutil.MarshalTimestamp(v.T, s)
		s.WriteMore()
		jsonutil.MarshalFloat(v.V, s)
		s.WriteArrayEnd()
	case promql.String:
		s.WriteArrayStart()
		jsonutil.MarshalTimestamp(v.T, s)
		s.WriteMore()
		s.WriteString(v.V)
		s.WriteArrayEnd()
	}
	if q.stats != nil {
		field(s, "stats")
		s.WriteVal(q.stats)
	}
	s.WriteObjectEnd()
}

// writeList writes an array and sends what has gathered on the way.
func writeList(s *jsoniter.Stream, n int, element func(i int)) {
	s.WriteArrayStart()
	for i := range n {
		if i > 0 {
			s.WriteMore()
		}
		element(i)
		if s.Buffered() > flushEvery {
			_ = s.Flush() // the stream keeps its error
		}
	}
	s.WriteArrayEnd()
}

func writeSeries(s *jsoniter.Stream, series promql.Series) {
	s.WriteObjectStart()
	s.WriteObjectField("metric")
	writeLabels(s, series.Metric)
	if len(series.Floats) > 0 {
		field(s, "values")
		writeList(s, len(series.Floats), func(i int) { writeFloat(s, series.Floats[i]) })
	}
	if len(series.Histograms) > 0 {
		field(s, "histograms")
		writeList(s, len(series.Histograms), func(i int) { writeHistogram(s, series.Histograms[i]) })
	}
	s.WriteObjectEnd()
}

func writeSample(s *jsoniter.Stream, sample promql.Sample) {
	s.WriteObjectStart()
	s.WriteObjectField("metric")
	writeLabels(s, sample.Metric)
	if sample.H == nil {
		field(s, "value")
		writeFloat(s, promql.FPoint{T: sample.T, F: sample.F})
	} else {
		field(s, "histogram")
		writeHistogram(s, promql.HPoint{T: sample.T, H: sample.H})
	}
	s.WriteObjectEnd()
}

func writeFloat(s *jsoniter.Stream, p promql.FPoint) {
	s.WriteArrayStart()
	jsonutil.MarshalTimestamp(p.T, s)
	s.WriteMore()
	jsonutil.MarshalFloat(p.F, s)
	s.WriteArrayEnd()
}

func writeHistogram(s *jsoniter.Stream, p promql.HPoint) {
	s.WriteArrayStart()
	jsonutil.MarshalTimestamp(p.T, s)
	s.WriteMore()
	jsonutil.MarshalHistogram(p.H, s)
	s.WriteArrayEnd()
}

func writeLabels(s *jsoniter.Stream, lset labels.Labels) {
	s.WriteObjectStart()
	first := true
	lset.Range(func(l labels.Label) {
		if !first {
			s.WriteMore()
		}
		first = false
		s.WriteString(l.Name)
		s.WriteRaw(":")
		s.WriteString(l.Value)
	})
	s.WriteObjectEnd()
}

// labelSets is the data of a series call.
type labelSets []labels.Labels

func (l labelSets) writeJSON(s *jsoniter.Stream) {
	writeList(s, len(l), func(i int) { writeLabels(s, l[i]) })
}
