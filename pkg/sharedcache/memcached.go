package sharedcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// memcachedServers are several servers, of which the hash of a key chooses one.
type memcachedServers struct {
	client    *memcache.Client
	list      *memcache.ServerList
	addresses []string
	ttl       int32 // in seconds
	batch     int   // keys of a request; 0 for all
	log       *slog.Logger

	stop context.CancelFunc
	done sync.WaitGroup
}

// maxTTL is from where on memcached takes a number of seconds for a date.
const maxTTL = 30 * 24 * time.Hour

func openMemcached(ctx context.Context, m *Memcached, ttl time.Duration, log *slog.Logger) *memcachedServers {
	list := new(memcache.ServerList)
	s := &memcachedServers{
		client: memcache.NewFromSelector(list), list: list, addresses: m.Addresses,
		ttl: int32(min(ttl, maxTTL) / time.Second), batch: m.MaxGetMultiBatchSize, log: log,
	}
	s.client.Timeout, s.client.MaxIdleConns = m.Timeout, m.MaxIdleConnections
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.done.Go(func() { s.discover(ctx, m.DNSProviderUpdateInterval) })
	return s
}

// discover looks the addresses up now and again. What was known stays known while
// that fails.
func (s *memcachedServers) discover(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var known []string
	failing := false
	for {
		found, err := lookUp(ctx, net.DefaultResolver, s.addresses)
		if err == nil && !slices.Equal(found, known) {
			if err = s.list.SetServers(found...); err == nil {
				known = found
			}
		}
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Warn("servers of the shared cache could not be looked up; those known before are used", "known", len(known), "err", err)
		}
		failing = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookUp returns the host:port addresses behind those of a configuration, sorted, so
// that all processes choose the same server for a key.
func lookUp(ctx context.Context, r *net.Resolver, addresses []string) (found []string, err error) {
	for _, a := range addresses {
		var behind []string
		switch kind, name := addressKind(a); kind {
		case "":
			behind = []string{a}
		case "dns":
			behind, err = lookUpHost(ctx, r, name)
		default:
			behind, err = lookUpService(ctx, r, name)
		}
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", a, err)
		}
		found = append(found, behind...)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// addressKind cuts an address in what stands before its plus sign and behind it.
func addressKind(address string) (kind, name string) {
	kind, name, looked := strings.Cut(address, "+")
	if !looked {
		return "", address
	}
	return kind, name
}

// checkAddress refuses an address that cannot be looked up.
func checkAddress(address string) error {
	kind, name := addressKind(address)
	switch kind {
	case "", "dns":
		if _, _, err := net.SplitHostPort(name); err != nil {
			return fmt.Errorf("address %s: %w; give host:port, dns+host:port or dnssrv+name", address, err)
		}
		return nil
	case "dnssrv", "dnssrvnoa":
		return nil
	}
	return fmt.Errorf("address %s: nothing is known of %s+; use dns+host:port or dnssrv+name", address, kind)
}

func lookUpHost(ctx context.Context, r *net.Resolver, address string) ([]string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	found, err := r.LookupHost(ctx, host)
	for i := range found {
		found[i] = net.JoinHostPort(found[i], port)
	}
	return found, err
}

func lookUpService(ctx context.Context, r *net.Resolver, name string) ([]string, error) {
	_, records, err := r.LookupSRV(ctx, "", "", name)
	found := make([]string, len(records))
	for i, record := range records {
		found[i] = net.JoinHostPort(strings.TrimSuffix(record.Target, "."), strconv.Itoa(int(record.Port)))
	}
	return found, err
}

// get asks the servers side by side; the client's timeout ends it.
func (s *memcachedServers) get(ctx context.Context, keys []string, found map[string][]byte) error {
	batch := len(keys)
	if s.batch > 0 {
		batch = s.batch
	}
	for keys := range slices.Chunk(keys, batch) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		items, err := s.client.GetMulti(keys)
		for k, item := range items {
			found[k] = item.Value
		}
		if err := known(err); err != nil {
			return err
		}
	}
	return nil
}

func (s *memcachedServers) set(_ context.Context, key string, value []byte) error {
	return known(s.client.Set(&memcache.Item{Key: key, Value: value, Expiration: s.ttl}))
}

func (s *memcachedServers) delete(_ context.Context, keys []string) (err error) {
	for _, k := range keys {
		if e := known(s.client.Delete(k)); e != nil && !errors.Is(e, memcache.ErrCacheMiss) {
			err = e
		}
	}
	return err
}

// known takes no offence at servers that were not looked up yet.
func known(err error) error {
	if errors.Is(err, memcache.ErrNoServers) {
		return nil
	}
	return err
}

func (s *memcachedServers) close() error {
	s.stop()
	s.done.Wait()
	return s.client.Close()
}
