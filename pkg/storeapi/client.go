package storeapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/util/annotations"
	"google.golang.org/grpc"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// Client is a Store on the other side of a connection. It is safe for concurrent use.
//
// A peer of our own kind takes the labels of Request.WithoutLabels out itself and
// sends replicas beside the labels. Any other is asked with those labels in, so
// that replicas stay apart; the client takes them out and sorts anew, which
// holds the whole answer.
//
// The same is done with the label of a block's shard (block.ShardLabel), which such
// a peer shows and which is none of its series' own: shards of a stream are not replicas.
//
// What a series stream holds is told to the Draw of its context, if there is one, and
// what it took to who asked with WithStats.
type Client struct {
	store storepb.StoreClient
	info  storepb.InfoClient
	peer  string
	opts  Options
	last  atomic.Pointer[Info]
}

var _ Store = (*Client)(nil)

// NewClient returns a client over conn, as Dial returns it. peer is the address
// that errors and warnings name. The caller keeps conn and closes it.
func NewClient(conn grpc.ClientConnInterface, peer string, o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("client of %s: %w", peer, err)
	}
	return &Client{store: storepb.NewStoreClient(conn), info: storepb.NewInfoClient(conn), peer: peer, opts: o}, nil
}

// Info asks the peer, and remembers what kind it is for the calls that follow.
func (c *Client) Info(ctx context.Context) (Info, error) {
	res, err := c.info.Info(ctx, &storepb.InfoRequest{})
	if err != nil {
		return Info{}, fromStatus("info of", c.peer, err)
	}
	info := infoFromWire(res)
	c.last.Store(&info)
	return info, nil
}

// known is the last answer to Info; it asks when there is none, for no longer
// than a frame may take.
func (c *Client) known(ctx context.Context) (Info, error) {
	if last := c.last.Load(); last != nil {
		return *last, nil
	}
	if wait := c.opts.ResponseTimeout; wait > 0 {
		limited, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		ctx = limited
	}
	return c.Info(ctx)
}

// Series streams from the peer. Errors appear on the set and name the peer.
//
// The resolution of aggregate chunks of a peer that does not tell it is guessed
// from the ends of their windows. A peer that breaks the order of series gets
// an error, not a wrong merge.
func (c *Client) Series(ctx context.Context, req *Request) series.Set {
	if err := req.Validate(); err != nil {
		return series.ErrSet(err)
	}
	info, err := c.known(ctx)
	if err != nil {
		return series.ErrSet(err)
	}
	wire := req.toWire()
	wire.ResponseBatchSize = int64(c.opts.BatchSize)
	if !info.Native {
		wire.ResponseBatchSize = min(wire.ResponseBatchSize, foreignBatch)
	}
	resort := !info.Native && (len(req.WithoutLabels) > 0 || info.sharded)
	if resort {
		// The peer sees replicas as series of their own, so it can neither drop
		// labels, nor shard, nor count for us.
		wire.WithoutReplicaLabels, wire.ShardInfo, wire.Limit = nil, nil, 0
	}
	if statsOf(ctx) != nil {
		if wire.Hints, err = wanted(); err != nil {
			return series.ErrSet(err)
		}
	}
	draw := drawOf(ctx)
	set := c.open(ctx, wire, draw)
	if resort {
		return &resortSet{in: set, req: req, draw: draw}
	}
	if req.Shard != nil && !info.SupportsSharding {
		return &shardSet{Set: set, shard: req.Shard, draw: draw}
	}
	return set
}

// LabelNames asks the peer. Names that the request does not want are taken out
// here too: some peers leave them in.
func (c *Client) LabelNames(ctx context.Context, req *LabelsRequest) ([]string, annotations.Annotations, error) {
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	res, err := c.store.LabelNames(ctx, &storepb.LabelNamesRequest{
		PartialResponseStrategy: partialToWire(req.Partial),
		Start:                   req.MinTime,
		End:                     req.MaxTime,
		Matchers:                matchersToWire(req.Matchers),
		WithoutReplicaLabels:    req.WithoutLabels,
		Limit:                   int64(req.Limit),
	})
	if err != nil {
		return nil, nil, fromStatus("label names of", c.peer, err)
	}
	names := slices.DeleteFunc(res.Names, func(name string) bool { return unwanted(name, req) })
	return cut(sortedUnique(names), req.Limit), c.annotations(res.Warnings), nil
}

// LabelValues asks the peer. A label that the request does not want has no values.
func (c *Client) LabelValues(ctx context.Context, name string, req *LabelsRequest) ([]string, annotations.Annotations, error) {
	if name == "" {
		return nil, nil, errNoLabel
	}
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	if unwanted(name, req) {
		return nil, nil, nil
	}
	res, err := c.store.LabelValues(ctx, &storepb.LabelValuesRequest{
		Label:                   name,
		PartialResponseStrategy: partialToWire(req.Partial),
		Start:                   req.MinTime,
		End:                     req.MaxTime,
		Matchers:                matchersToWire(req.Matchers),
		WithoutReplicaLabels:    req.WithoutLabels,
		Limit:                   int64(req.Limit),
	})
	if err != nil {
		return nil, nil, fromStatus("label values of", c.peer, err)
	}
	return cut(sortedUnique(res.Values), req.Limit), c.annotations(res.Warnings), nil
}

// unwanted reports whether a label is none that the answer to a request shows.
func unwanted(name string, req *LabelsRequest) bool {
	return name == block.ShardLabel || slices.Contains(req.WithoutLabels, name)
}

// annotations are the warnings of the peer under its name.
func (c *Client) annotations(texts []string) (as annotations.Annotations) {
	for _, text := range texts {
		as.Add(c.warning(text))
	}
	return as
}

func (c *Client) warning(text string) error { return errors.New(c.peer + ": " + text) }

func sortedUnique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
