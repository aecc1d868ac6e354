// Package sharedcache keeps values by key in memcached or Redis, where several
// processes find them.
//
// It stands on floor 1 and knows nothing of what the values mean. Servers are trusted
// with nothing: one that is slow, full or gone costs a miss, a metric and a log line,
// never an error; after a run of errors all are left alone for a while. Values are
// written behind the caller's back, by a bounded queue. The configuration is the YAML
// of Thanos' index cache and caching bucket (type, config, ttl).
package sharedcache
