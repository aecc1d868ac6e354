package query

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Resolver is the part of net.Resolver that discovery needs.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// The prefixes of an address that is looked up.
const (
	prefixDNS       = "dns+"
	prefixDualStack = "dnsdualstack+"
	prefixSRV       = "dnssrv+"
	prefixSRVNoA    = "dnssrvnoa+"
)

// isLookup reports whether an address names several endpoints through DNS.
func isLookup(address string) bool {
	for _, p := range []string{prefixDNS, prefixDualStack, prefixSRV, prefixSRVNoA} {
		if strings.HasPrefix(address, p) {
			return true
		}
	}
	return false
}

// resolve returns the host:port addresses behind a configured address, sorted.
// A name that DNS knows not to exist has none; any other trouble is an error.
func resolve(ctx context.Context, r Resolver, address string) ([]string, error) {
	prefix, name, looked := strings.Cut(address, "+")
	if !looked || !isLookup(address) {
		return []string{address}, nil
	}
	var found []string
	var err error
	switch prefix + "+" {
	case prefixDNS, prefixDualStack:
		var host, port string
		if host, port, err = net.SplitHostPort(name); err != nil {
			return nil, fmt.Errorf("endpoint %s: %w; give %shost:port", address, err, prefix+"+")
		}
		found, err = lookupHost(ctx, r, prefix+"+", host, port)
	case prefixSRV, prefixSRVNoA:
		found, err = lookupSRV(ctx, r, prefix+"+", name)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", address, err)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// lookupHost prefers IPv4, so that a dual-stack host is one endpoint; with
// dnsdualstack+ it returns both.
func lookupHost(ctx context.Context, r Resolver, prefix, host, port string) ([]string, error) {
	network := "ip4"
	if prefix == prefixDualStack {
		network = "ip"
	}
	ips, err := r.LookupNetIP(ctx, network, host)
	var dns *net.DNSError
	if network == "ip4" && (len(ips) == 0 && err == nil || errors.As(err, &dns) && dns.IsNotFound) {
		ips, err = r.LookupNetIP(ctx, "ip6", host)
	}
	if err != nil {
		return nil, err
	}
	found := make([]string, 0, len(ips))
	for _, ip := range ips {
		found = append(found, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return found, nil
}

func lookupSRV(ctx context.Context, r Resolver, prefix, name string) ([]string, error) {
	_, records, err := r.LookupSRV(ctx, "", "", name)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, record := range records {
		host, port := strings.TrimSuffix(record.Target, "."), strconv.Itoa(int(record.Port))
		if prefix == prefixSRVNoA {
			found = append(found, net.JoinHostPort(host, port))
			continue
		}
		hosts, err := lookupHost(ctx, r, prefixDNS, record.Target, port)
		if err != nil {
			return nil, err
		}
		found = append(found, hosts...)
	}
	return found, nil
}
