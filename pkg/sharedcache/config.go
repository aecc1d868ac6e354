package sharedcache

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/config"
	"go.yaml.in/yaml/v2"
)

// Bytes is a size such as 1MiB, or a plain number.
type Bytes int64

// UnmarshalYAML reads a size.
func (b *Bytes) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		*b = Bytes(n)
		return nil
	}
	n, err := units.ParseBase2Bytes(text)
	if err != nil {
		return fmt.Errorf("size %q: write a number of bytes, or one such as 1MiB", text)
	}
	*b = Bytes(n)
	return nil
}

// Config says where values are kept. At most one of its servers is set; none means
// that there is nothing to share through.
type Config struct {
	Memcached *Memcached
	Redis     *Redis
	// TTL is how long a value stays.
	TTL time.Duration
}

// Memcached is the config section of type MEMCACHED.
type Memcached struct {
	// Addresses are host:port, or names behind dns+, dnssrv+ and dnssrvnoa+.
	Addresses                 []string      `yaml:"addresses"`
	Timeout                   time.Duration `yaml:"timeout"`
	MaxIdleConnections        int           `yaml:"max_idle_connections"`
	MaxItemSize               Bytes         `yaml:"max_item_size"`
	DNSProviderUpdateInterval time.Duration `yaml:"dns_provider_update_interval"`
	AutoDiscovery             bool          `yaml:"auto_discovery"`
	Limits                    `yaml:",inline"`
	MaxGetMultiBatchSize      int `yaml:"max_get_multi_batch_size"`
}

// Redis is the config section of type REDIS.
type Redis struct {
	// Addr is host:port, or several with commas between: the nodes of a cluster, or with
	// MasterName the sentinels.
	Addr         string           `yaml:"addr"`
	Username     string           `yaml:"username"`
	Password     config.Secret    `yaml:"password"`
	DB           int              `yaml:"db"`
	MasterName   string           `yaml:"master_name"`
	Prefix       string           `yaml:"prefix"`
	DialTimeout  time.Duration    `yaml:"dial_timeout"`
	ReadTimeout  time.Duration    `yaml:"read_timeout"`
	WriteTimeout time.Duration    `yaml:"write_timeout"`
	TLSEnabled   bool             `yaml:"tls_enabled"`
	TLS          config.TLSConfig `yaml:"tls_config"`
	Limits       `yaml:",inline"`

	GetMultiBatchSize int `yaml:"get_multi_batch_size"`
	// The following are read for compatibility: values are written one by one, and
	// memory and disk of the process are its cache on the client's side.
	MaxSetMultiConcurrency int   `yaml:"max_set_multi_concurrency"`
	SetMultiBatchSize      int   `yaml:"set_multi_batch_size"`
	CacheSize              Bytes `yaml:"cache_size"`
}

// inMemory is the config section of type IN-MEMORY, which is read for compatibility: how
// much is kept in memory is said elsewhere.
type inMemory struct {
	MaxSize     Bytes `yaml:"max_size"`
	MaxItemSize Bytes `yaml:"max_item_size"`
}

// Limits bound what is asked of the servers at once.
type Limits struct {
	// MaxAsyncConcurrency are the writers, MaxAsyncBufferSize the values that may wait
	// for them.
	MaxAsyncConcurrency int `yaml:"max_async_concurrency"`
	MaxAsyncBufferSize  int `yaml:"max_async_buffer_size"`
	// MaxGetMultiConcurrency are the lookups under way; others are misses.
	MaxGetMultiConcurrency int     `yaml:"max_get_multi_concurrency"`
	Breaker                Breaker `yaml:"set_async_circuit_breaker_config"`
}

// Breaker says when servers are left alone. That it does so cannot be switched off;
// Enabled, HalfOpenMaxRequests, MinRequests and FailurePercent are read for
// compatibility.
type Breaker struct {
	Enabled             bool          `yaml:"enabled"`
	HalfOpenMaxRequests int           `yaml:"half_open_max_requests"`
	OpenDuration        time.Duration `yaml:"open_duration"`
	MinRequests         int           `yaml:"min_requests"`
	ConsecutiveFailures int           `yaml:"consecutive_failures"`
	FailurePercent      float64       `yaml:"failure_percent"`
}

// file is the YAML of both of Thanos' caches; what says how Thanos cuts its own values
// has no meaning here.
type file struct {
	Type   string `yaml:"type"`
	Config any    `yaml:"config"`

	// Of the index cache.
	EnabledItems []string      `yaml:"enabled_items"`
	TTL          time.Duration `yaml:"ttl"`

	// Of the caching bucket.
	ChunkSubrangeTTL          time.Duration `yaml:"chunk_subrange_ttl"`
	ChunkSubrangeSize         int64         `yaml:"chunk_subrange_size"`
	MaxChunksGetRangeRequests int           `yaml:"max_chunks_get_range_requests"`
	MetafileMaxSize           Bytes         `yaml:"metafile_max_size"`
	ChunkObjectAttrsTTL       time.Duration `yaml:"chunk_object_attrs_ttl"`
	BlocksIterTTL             time.Duration `yaml:"blocks_iter_ttl"`
	MetafileExistsTTL         time.Duration `yaml:"metafile_exists_ttl"`
	MetafileDoesntExistTTL    time.Duration `yaml:"metafile_doesnt_exist_ttl"`
	MetafileContentTTL        time.Duration `yaml:"metafile_content_ttl"`
}

const defaultTTL = 24 * time.Hour

func defaultLimits() Limits {
	return Limits{
		MaxAsyncConcurrency: 20, MaxAsyncBufferSize: 10_000, MaxGetMultiConcurrency: 100,
		Breaker: Breaker{OpenDuration: 5 * time.Second, ConsecutiveFailures: 5},
	}
}

// Parse reads the YAML of an index cache or a caching bucket. A configuration without
// servers, such as of type IN-MEMORY, is nil. The type may be in lower case.
func Parse(content []byte) (*Config, error) {
	var f file
	if err := yaml.UnmarshalStrict(content, &f); err != nil {
		return nil, fmt.Errorf("parse the YAML of a cache: %w", err)
	}
	c := &Config{TTL: defaultTTL}
	for _, ttl := range []time.Duration{f.TTL, f.ChunkSubrangeTTL} {
		if ttl > 0 {
			c.TTL = ttl
		}
	}
	section, err := yaml.Marshal(f.Config)
	if err != nil {
		return nil, fmt.Errorf("parse the config of a cache: %w", err)
	}
	switch strings.ToUpper(f.Type) {
	case "", "IN-MEMORY":
		if err := yaml.UnmarshalStrict(section, &inMemory{}); err != nil {
			return nil, fmt.Errorf("config of a cache of type IN-MEMORY: %w", err)
		}
		return nil, nil //nolint:nilnil // documented: there is nothing to share through
	case "MEMCACHED":
		c.Memcached = &Memcached{
			Timeout: 500 * time.Millisecond, MaxIdleConnections: 100, MaxItemSize: 1 << 20,
			DNSProviderUpdateInterval: 10 * time.Second, Limits: defaultLimits(),
		}
		err = errors.Join(yaml.UnmarshalStrict(section, c.Memcached), c.Memcached.validate())
	case "REDIS":
		c.Redis = &Redis{
			DialTimeout: 5 * time.Second, ReadTimeout: 3 * time.Second, WriteTimeout: 3 * time.Second,
			GetMultiBatchSize: 100, Limits: defaultLimits(),
		}
		err = errors.Join(yaml.UnmarshalStrict(section, c.Redis), c.Redis.validate())
	default:
		return nil, fmt.Errorf("cache of type %q: use IN-MEMORY, MEMCACHED or REDIS", f.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("config of a cache of type %s: %w", strings.ToUpper(f.Type), err)
	}
	return c, nil
}

func (m *Memcached) validate() error {
	var errs []error
	if len(m.Addresses) == 0 {
		errs = append(errs, errors.New("addresses is missing: list host:port, or dnssrv+name"))
	}
	for _, a := range m.Addresses {
		errs = append(errs, checkAddress(a))
	}
	if m.AutoDiscovery {
		errs = append(errs, errors.New("auto_discovery is not supported: list the nodes, or a dns+ name, under addresses"))
	}
	if m.Timeout <= 0 || m.DNSProviderUpdateInterval <= 0 {
		errs = append(errs, errors.New("timeout and dns_provider_update_interval: give more than 0"))
	}
	return errors.Join(append(errs, m.Limits.validate())...)
}

func (r *Redis) validate() error {
	var errs []error
	if r.Addr == "" {
		errs = append(errs, errors.New("addr is missing: give host:port"))
	}
	if r.GetMultiBatchSize < 1 {
		errs = append(errs, errors.New("get_multi_batch_size: give 1 or more"))
	}
	return errors.Join(append(errs, r.Limits.validate())...)
}

func (l Limits) validate() error {
	if l.MaxAsyncConcurrency < 1 || l.MaxAsyncBufferSize < 1 || l.MaxGetMultiConcurrency < 1 ||
		l.Breaker.ConsecutiveFailures < 1 || l.Breaker.OpenDuration <= 0 {
		return errors.New("max_async_concurrency, max_async_buffer_size, max_get_multi_concurrency, " +
			"consecutive_failures and open_duration: give more than 0")
	}
	return nil
}
