package main

import (
	"maps"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/e2e/history"
)

// truth is the answer that a bucket's generator knows to a question.
func (d *dataset) truth(bucket string, q question) *answer { return d.truthOf(d.plan(bucket), q) }

// truthOf is the answer that so much of a bucket would give.
func (d *dataset) truthOf(jobs []job, q question) *answer {
	whole := newAnswer()
	for _, j := range jobs {
		parts := make(chan *answer)
		var workers sync.WaitGroup
		const n = 4
		for w := range n {
			workers.Go(func() {
				part := newAnswer()
				for i := w; i < len(j.options.Processes); i += n {
					part.addProcess(j, j.options.Processes[i], q)
				}
				parts <- part
			})
		}
		go func() {
			workers.Wait()
			close(parts)
		}()
		for part := range parts {
			maps.Copy(whole.series, part.series)
			whole.samples += part.samples
			whole.sum += part.sum
		}
	}
	return whole
}

// addProcess counts the samples that a replica scraped of a process, if the question selects it.
func (a *answer) addProcess(j job, p history.Process, q question) {
	b := labels.NewBuilder(p.Labels)
	for name, value := range j.replica.Labels {
		b.Set(name, value)
	}
	lset := b.Labels()
	if !q.selects(lset) {
		return
	}
	id := lset.Hash()
	every, phase := j.options.Interval.Milliseconds(), j.replica.Phase.Milliseconds()
	from, to := max(q.mint, j.options.Start.UnixMilli()), min(q.maxt, j.options.End.UnixMilli()-1)
	for t := from/every*every + phase; t <= to; t += every {
		if t >= from {
			a.addSample(id, t, p.At(t))
			a.series[id] = true
		}
	}
}
