package sharedcache

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"github.com/redis/go-redis/v9"
)

// redisServers are a server, a cluster, or the master behind sentinels.
type redisServers struct {
	client redis.UniversalClient
	prefix string
	batch  int
	ttl    time.Duration
}

// chatter takes what the client would print by itself.
type chatter struct{ log *slog.Logger }

func (c chatter) Printf(ctx context.Context, format string, v ...any) {
	c.log.DebugContext(ctx, "redis client", "says", fmt.Sprintf(format, v...))
}

func openRedis(r *Redis, ttl time.Duration, log *slog.Logger) (*redisServers, error) {
	redis.SetLogger(chatter{log})
	var secure *tls.Config
	if r.TLSEnabled {
		var err error
		if secure, err = config.NewTLSConfig(&r.TLS); err != nil {
			return nil, err //nolint:wrapcheck // it names the file
		}
	}
	addresses := strings.Split(r.Addr, ",")
	for i, a := range addresses {
		addresses[i] = strings.TrimSpace(a)
	}
	client := redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs: addresses, MasterName: r.MasterName, DB: r.DB,
		Username: r.Username, Password: string(r.Password), TLSConfig: secure,
		DialTimeout: r.DialTimeout, ReadTimeout: r.ReadTimeout, WriteTimeout: r.WriteTimeout,
		ContextTimeoutEnabled: true, MaxRetries: -1, // what fails is a miss
		DisableIdentity: true,
	})
	return &redisServers{client: client, prefix: r.Prefix, batch: r.GetMultiBatchSize, ttl: ttl}, nil
}

// get sends the keys in batches, each in one round trip; a cluster's nodes are asked
// side by side.
func (r *redisServers) get(ctx context.Context, keys []string, found map[string][]byte) error {
	for batch := range slices.Chunk(keys, r.batch) {
		answers, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, k := range batch {
				p.Get(ctx, r.prefix+k)
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("get %d keys from Redis: %w", len(batch), err)
		}
		for i, a := range answers {
			if value, err := a.(*redis.StringCmd).Bytes(); err == nil {
				found[batch[i]] = value
			} else if !errors.Is(err, redis.Nil) {
				return fmt.Errorf("get %s from Redis: %w", batch[i], err)
			}
		}
	}
	return nil
}

func (r *redisServers) set(ctx context.Context, key string, value []byte) error {
	return r.client.Set(ctx, r.prefix+key, value, r.ttl).Err()
}

func (r *redisServers) delete(ctx context.Context, keys []string) error {
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, k := range keys {
			p.Del(ctx, r.prefix+k)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete %d keys from Redis: %w", len(keys), err)
	}
	return nil
}

func (r *redisServers) close() error { return r.client.Close() }
