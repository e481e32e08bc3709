package planner

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"skein.dev/platform/fault"
)

// closed are the networks that a URL which a stranger gave may not lead to: this machine, private ones, those of the cloud's own
// services, and what embeds addresses of these.
var closed = func() (nets []netip.Prefix) {
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
		"fec0::/10", "ff00::/8",
	} {
		nets = append(nets, netip.MustParsePrefix(s))
	}
	return nets
}()

// reachable says whether an address may be connected to.
func reachable(addr netip.Addr, allow []netip.Prefix) bool {
	addr = addr.Unmap().WithZone("") // a network holds no address with a zone
	for _, n := range allow {
		if n.Contains(addr) {
			return true
		}
	}
	for _, n := range closed {
		if n.Contains(addr) {
			return false
		}
	}
	return addr.IsValid()
}

// guardedClient calls URLs that strangers gave. The address is looked at when the connection is made, after the name was
// resolved, so a name that changes its mind gains nothing; redirects are not followed, and no proxy is asked.
func guardedClient(allow []netip.Prefix) *http.Client {
	dialer := &net.Dialer{
		Timeout: hookTime,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil || !reachable(to.Addr(), allow) {
				return fault.Denied.New("ADDRESS_REFUSED", "%s is in a network that webhooks may not reach", address).
					WithHint("the planner's --webhook-allow permits networks")
			}
			return nil
		},
	}
	return &http.Client{
		Timeout: hookTime,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxIdleConns: hookCalls, MaxIdleConnsPerHost: hookHost, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
