package sharedcache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/pkg/sharedcache"
)

func TestThanosConfigurationsAreRead(t *testing.T) {
	for name, tc := range map[string]struct {
		yaml  string
		check func(c *sharedcache.Config) bool
	}{
		"an index cache as kube-thanos writes it": {`
"config":
  "addresses":
  - "dnssrv+_client._tcp.memcached.thanos.svc"
  "dns_provider_update_interval": "10s"
  "max_async_buffer_size": 10000
  "max_async_concurrency": 20
  "max_get_multi_batch_size": 0
  "max_get_multi_concurrency": 100
  "max_idle_connections": 100
  "max_item_size": "1MiB"
  "timeout": "500ms"
"type": "memcached"
`, func(c *sharedcache.Config) bool {
			m := c.Memcached
			return c.TTL == 24*time.Hour && m.MaxItemSize == 1<<20 && m.Timeout == 500*time.Millisecond && m.MaxAsyncConcurrency == 20 && len(m.Addresses) == 1
		}},
		"a caching bucket": {`
type: REDIS
config: {addr: "a:1, b:2", password: geheim, prefix: "x:", set_async_circuit_breaker_config: {enabled: true, consecutive_failures: 9}}
chunk_subrange_size: 16000
chunk_subrange_ttl: 48h
metafile_max_size: 1MiB
blocks_iter_ttl: 5m
`, func(c *sharedcache.Config) bool {
			return c.TTL == 48*time.Hour && c.Redis.Prefix == "x:" && c.Redis.Breaker.ConsecutiveFailures == 9 && c.Redis.GetMultiBatchSize == 100
		}},
		"in memory": {`{type: in-memory, config: {max_size: 250MB, max_item_size: 125MB}, enabled_items: [Postings]}`, func(c *sharedcache.Config) bool { return c == nil }},
		"empty":     {``, func(c *sharedcache.Config) bool { return c == nil }},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := sharedcache.Parse([]byte(tc.yaml))
			if err != nil {
				t.Fatalf("parse: %v", err)
			}
			if !tc.check(c) {
				t.Errorf("parsed as %+v", c)
			}
		})
	}
}

func TestMistakesInAConfigurationAreNamed(t *testing.T) {
	for yaml, want := range map[string]string{
		"type: GROUPCACHE":                                                          `"GROUPCACHE": use IN-MEMORY, MEMCACHED or REDIS`,
		"{type: IN-MEMORY, config: {max_sice: 1MB}}":                                "max_sice",
		"{type: MEMCACHED, tll: 1h}":                                                "tll",
		"{type: MEMCACHED, config: {}}":                                             "addresses is missing",
		"{type: MEMCACHED, config: {adresses: [x]}}":                                "adresses",
		"{type: MEMCACHED, config: {addresses: [x]}}":                               "address x: address x: missing port",
		"{type: MEMCACHED, config: {addresses: [udp+x:1]}}":                         "nothing is known of udp+",
		"{type: MEMCACHED, config: {addresses: ['x:1'], auto_discovery: true}}":     "auto_discovery is not supported",
		"{type: MEMCACHED, config: {addresses: ['x:1'], max_item_size: 1 pony}}":    `size "1 pony"`,
		"{type: MEMCACHED, config: {addresses: ['x:1'], timeout: 0s}}":              "timeout and dns_provider_update_interval",
		"{type: MEMCACHED, config: {addresses: ['x:1'], max_async_concurrency: 0}}": "max_async_concurrency",
		"{type: REDIS, config: {}}":                                                 "addr is missing",
		"{type: REDIS, config: {addr: 'x:1', get_multi_batch_size: 0}}":             "get_multi_batch_size",
	} {
		if _, err := sharedcache.Parse([]byte(yaml)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", yaml, err, want)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c, err := sharedcache.Parse([]byte("{type: REDIS, config: {addr: 'x:1', password: geheim}}"))
	if err != nil {
		t.Fatal(err)
	}
	if string(c.Redis.Password) != "geheim" {
		t.Errorf("password: got %q", string(c.Redis.Password))
	}
}
