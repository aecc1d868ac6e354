package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/sharedcache"
)

// sharedCache is the cache that several stores share: Thanos configures one for its
// indexes and one for its chunks, here one serves both.
type sharedCache struct {
	flags  []*daemon.Content
	config *sharedcache.Config // nil for none
	unused string              // what was given beside it
}

func (s *sharedCache) bind(f *daemon.Flags) {
	const help = "Cache of what was read that several stores share, as Thanos' YAML of type MEMCACHED or REDIS. "
	s.flags = []*daemon.Content{
		f.Content("store.caching-bucket.config", help+"Type IN-MEMORY sets nothing: see --store.cache-bytes."),
		f.Content("index-cache.config", help+"Used if the former names no servers."),
	}
}

// read parses the flags; the first that names servers counts.
func (s *sharedCache) read() error {
	for _, flag := range s.flags {
		content, err := flag.Read()
		if err != nil {
			return err
		}
		c, err := sharedcache.Parse(content)
		switch {
		case err != nil:
			return fmt.Errorf("--%s: %w", flag.Name(), err)
		case c == nil:
		case s.config == nil:
			s.config = c
		default:
			s.unused = "--" + flag.Name()
		}
	}
	return nil
}

// open returns the cache, or nil if none is configured.
func (s *sharedCache) open(ctx context.Context, log *slog.Logger, reg prometheus.Registerer) (*sharedcache.Cache, error) {
	if s.config == nil {
		return nil, nil //nolint:nilnil // documented
	}
	if s.unused != "" {
		log.Info("one shared cache serves indexes and chunks; that of --store.caching-bucket.config is used", "unused", s.unused)
	}
	return sharedcache.Open(ctx, s.config, log, reg)
}
