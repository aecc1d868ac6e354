package main

import (
	"context"
	"fmt"
	"time"
)

// everything selects all series.
const everything = `{__name__=~".+"}`

// group is a part of the run that can be chosen by name.
type group struct {
	name, help string
	buckets    []string
	run        func(b *bench, ctx context.Context, s subject) error
}

func groups() []group {
	return []group{
		{"raw", "narrow and wide questions over two-hour blocks, and a mix of nine", []string{bucketRaw}, (*bench).raw},
		{"days", "wide questions over a two-day block", []string{bucketDays}, (*bench).days},
		{"huge", "an answer of 2 GiB at full scale", []string{bucketNoise}, (*bench).huge},
		{"small", "start over very many blocks, without distance", []string{bucketSmall}, (*bench).small},
		{"hostile", "hostile requests among normal ones, in 512 MiB", []string{bucketRaw}, (*bench).hostile},
		{"faults", "a broken server and a broken disk", []string{bucketRaw}, (*bench).faulty},
		{"compact", "a compactor that finds all blocks at once", []string{bucketRaw}, (*bench).compaction},
		{"steady", "a compactor that runs whenever two blocks arrive", nil, (*bench).steady},
	}
}

// raw measures the two-hour blocks of two replicas.
func (b *bench) raw(ctx context.Context, subj subject) error {
	hours := b.data.hours
	o := sessionOptions{group: "2 h blocks", start: "start", bucket: bucketRaw, dir: "narrow", distance: s3Distance()}
	err := b.session(ctx, subj, o, func(s *session) error {
		narrow := b.data.over(hours, metricNarrow+narrowOnly)
		if err := s.discard(ctx, "20 series, cold", narrow); err != nil {
			return err
		}
		b.report.sum(s.group, "start + 20 series, cold", subj.name, "start", "20 series, cold")
		return s.discard(ctx, "20 series, again", narrow)
	})
	if err != nil {
		return err
	}
	o.start = "restart"
	err = b.session(ctx, subj, o, func(s *session) error {
		return s.discard(ctx, "20 other series", b.data.over(hours, metricOther+narrowOnly))
	})
	if err != nil {
		return err
	}
	o.start, o.dir = "start (2)", "wide"
	err = b.session(ctx, subj, o, func(s *session) error {
		return s.wide(ctx, o.start, b.data.over)
	})
	if err != nil {
		return err
	}
	o.start, o.dir = "start (3)", "mix"
	return b.session(ctx, subj, o, func(s *session) error { return s.mix(ctx) })
}

// wide asks two wide questions, of which the first finds nothing of any index at hand but what
// the gateway read to start.
func (s *session) wide(ctx context.Context, start string, over func(hours int, selector string) question) error {
	hours := min(46, s.data.hours)
	first := fmt.Sprintf("24 %% × %d h, cold", hours)
	if err := s.discard(ctx, first, over(hours, metricWide)); err != nil {
		return err
	}
	s.report.sum(s.group, "start + "+first, s.subject.name, start, first)
	return s.discard(ctx, fmt.Sprintf("43 %% × %d h, cold", hours), over(hours, metricWider))
}

// mix asks what a dashboard asks, nine questions one after the other.
func (s *session) mix(ctx context.Context) error {
	hours := s.data.hours
	all := []question{
		s.data.over(hours, metricNarrow+narrowOnly),
		s.data.over(min(2, hours), metricWide),
		s.data.over(min(24, hours), metricWide),
		s.data.over(min(6, hours), metricWider),
		s.data.over(min(24, hours), metricWider+`{le="0.005"}`),
		s.data.over(hours, `{__name__=~"process_metric_1.*"}`),
		s.data.over(min(12, hours), `{namespace="team-3",code!="500"}`),
		s.data.over(min(46, hours), metricWider),
		s.data.over(min(1, hours), everything),
	}
	_, err := s.measure("nine questions", func() (total size, err error) {
		for _, q := range all {
			one, err := s.client.discard(ctx, q)
			if err != nil {
				return total, err
			}
			total.frames += one.frames
			total.bytes += one.bytes
		}
		return total, s.labelValues(ctx, "pod", all[0])
	})
	return err
}

// days measures the block of two days.
func (b *bench) days(ctx context.Context, subj subject) error {
	o := sessionOptions{group: "2 d block", start: "start", bucket: bucketDays, dir: "days", distance: s3Distance()}
	return b.session(ctx, subj, o, func(s *session) error { return s.wide(ctx, o.start, b.data.compactedOver) })
}

// huge measures an answer that is larger than memory should become.
func (b *bench) huge(ctx context.Context, subj subject) error {
	o := sessionOptions{group: "huge", start: "start", bucket: bucketNoise, dir: "huge", distance: s3Distance()}
	return b.session(ctx, subj, o, func(s *session) error {
		return s.discard(ctx, "everything", b.data.over(b.data.hours, everything))
	})
}

// small measures the start over very many blocks, first without anything between
// gateway and server, then with the proxy, which counts and adds no distance.
func (b *bench) small(ctx context.Context, subj subject) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	for _, o := range []sessionOptions{
		{start: "start", dir: "small", direct: true},
		{start: "restart", dir: "small", direct: true},
		{start: "start, counted", dir: "counted"},
		{start: "restart, counted", dir: "counted"},
	} {
		o.group, o.bucket = fmt.Sprintf("%d blocks", b.data.blocks), bucketSmall
		if err := b.session(ctx, subj, o, func(*session) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}
