package planner

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/encoding/protojson"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Webhooks are the settings of how ends of calls are told to URLs.
type Webhooks struct {
	Key   string
	Allow string
}

// Flags registers the settings.
func (w *Webhooks) Flags(fs *flag.FlagSet) {
	fs.StringVar(&w.Key, "webhook-key", w.Key, "`secret` that signs webhooks: whsec_ and 24 to 64 bytes in base64; several, with commas between, while one takes another's place; none leaves them unsigned")
	fs.StringVar(&w.Allow, "webhook-allow", w.Allow, "`networks` that webhooks may reach although they are private, as 10.1.0.0/16,192.168.7.1")
}

// Limits of the calling of webhooks.
const (
	hookCalls  = 16               // at the same time
	hookHost   = 4                // of them to one host: a slow one leaves room for others
	hookTime   = 10 * time.Second // for an answer
	hookClaim  = 30 * time.Second // after which one whose caller was lost is called again
	hookBreak  = 10 * time.Second // for which a host is left alone that could not be reached
	hookPoll   = 500 * time.Millisecond
	hookOutput = 16 << 10 // bytes of output that travel with the news
)

// hookPauses are the pauses between tries, as Standard Webhooks has them: about a day in all.
var hookPauses = [...]time.Duration{
	5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 6 * time.Hour, 10 * time.Hour,
}

// hooks calls webhooks: each at least once, until its host says 2xx or the tries are used up.
type hooks struct {
	p      *Planner
	keys   [][]byte
	client *http.Client
	pauses []time.Duration
	mu     sync.Mutex
	hosts  map[string]*hookTarget
	slots  chan struct{}
	ends   metric.Int64Counter // of tries
}

// hookTarget is a host that was called a short while ago.
type hookTarget struct {
	busy  int       // calls in progress
	until time.Time // it is left alone
}

func newHooks(p *Planner, w Webhooks) (*hooks, error) {
	keys, err := parseHookKeys(w.Key)
	if err != nil {
		return nil, err
	}
	allow, err := parseNetworks(w.Allow)
	if err != nil {
		return nil, err
	}
	ends, err := otel.Meter("skein.dev/services/planner").Int64Counter("skein.webhook_tries", metric.WithDescription("Calls of webhooks, by what came of them"))
	return &hooks{
		p: p, keys: keys, client: guardedClient(allow), pauses: hookPauses[:], hosts: map[string]*hookTarget{}, slots: make(chan struct{}, hookCalls),
		ends: ends,
	}, err
}

func parseHookKeys(s string) (keys [][]byte, err error) {
	for part := range strings.SplitSeq(s, ",") {
		if part == "" {
			continue
		}
		text, ok := strings.CutPrefix(part, "whsec_")
		key, err := base64.StdEncoding.DecodeString(text)
		if !ok || err != nil || len(key) < 24 || len(key) > 64 {
			return nil, errors.New("--webhook-key: want whsec_ and 24 to 64 bytes in base64, such as: echo whsec_$(head -c 32 /dev/urandom | base64)")
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// run calls what is due until ctx ends.
func (h *hooks) run(ctx context.Context) error {
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(hookPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		due, err := h.p.dueHooks(ctx, time.Now(), 4*hookCalls)
		if err != nil { // the journal is away: it keeps them
			continue
		}
		h.tidy()
		for _, k := range due {
			select {
			case h.slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			if !h.claim(ctx, k) {
				<-h.slots
				continue
			}
			calls.Go(func() {
				defer func() { <-h.slots }()
				h.settle(ctx, k, h.call(ctx, k))
			})
		}
	}
}

// claim takes a webhook for its next try; it counts before it is made. False if it is not to be called now.
func (h *hooks) claim(ctx context.Context, k hook) bool {
	now := time.Now()
	host := hookHostOf(k.URL)
	h.mu.Lock()
	t := h.hosts[host]
	if t == nil {
		t = &hookTarget{}
		h.hosts[host] = t
	}
	later := now.Before(t.until) || t.busy >= hookHost
	if !later {
		t.busy++
	}
	h.mu.Unlock()
	if later {
		_ = h.p.putHook(ctx, k.ID, k.Tries, now.Add(hookBreak/2+rand.N(hookBreak)))
		return false
	}
	if err := h.p.putHook(ctx, k.ID, k.Tries+1, now.Add(hookClaim)); err != nil {
		h.release(host, false)
		return false
	}
	return true
}

func (h *hooks) release(host string, unreachable bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.hosts[host]
	if t == nil {
		return
	}
	t.busy--
	if unreachable {
		t.until = time.Now().Add(hookBreak)
	}
}

// tidy forgets hosts that nothing is known of any more.
func (h *hooks) tidy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for name, t := range h.hosts {
		if t.busy == 0 && now.After(t.until) {
			delete(h.hosts, name)
		}
	}
}

// hookEnd is how one try ended.
type hookEnd struct {
	done        bool // whatever the reason: no other try follows
	unreachable bool
	after       time.Duration // what the host asked for
	err         error
}

// settle writes down what comes of a try.
func (h *hooks) settle(ctx context.Context, k hook, end hookEnd) {
	host := hookHostOf(k.URL)
	h.release(host, end.unreachable)
	log := h.p.log.With("call", k.ID.String(), "host", host, "try", k.Tries+1)
	outcome := "failed"
	switch {
	case ctx.Err() != nil: // the claim runs out, and whoever leads then tries again
		return
	case end.err == nil:
		outcome = "delivered"
	case end.done || k.Tries >= len(h.pauses):
		outcome, end.done = "given up", true
		log.Warn("webhook given up", "error", end.err)
	default:
		log.Info("webhook failed", "error", end.err)
	}
	h.ends.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	next := time.Time{}
	if end.err != nil && !end.done {
		pause := h.pauses[k.Tries]
		next = time.Now().Add(max(pause-pause/5+rand.N(pause*2/5+1), min(end.after, time.Hour)))
	}
	if err := h.p.putHook(ctx, k.ID, k.Tries+1, next); err != nil {
		log.Warn("webhook: its end was not written down", "error", err)
	}
}

// call makes one try.
func (h *hooks) call(ctx context.Context, k hook) hookEnd {
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	rec, err := h.p.Find(ctx, k.ID)
	switch {
	case errors.Is(err, fault.NotFound):
		return hookEnd{done: true, err: errors.New("the call is forgotten")}
	case err != nil:
		return hookEnd{err: err}
	case !rec.State.Terminal():
		return hookEnd{err: errors.New("the call has not ended")}
	}
	body, err := hookBody(rec)
	if err != nil {
		return hookEnd{done: true, err: err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.URL, bytes.NewReader(body))
	if err != nil {
		return hookEnd{done: true, err: errors.New("its URL is none")}
	}
	h.sign(req, k.ID, time.Now(), body)
	resp, err := h.client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a secret
		}
		return hookEnd{unreachable: true, err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return hookEnd{}
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return hookEnd{
		done: resp.StatusCode == http.StatusGone, after: time.Duration(min(max(seconds, 0), 3600)) * time.Second,
		err: fmt.Errorf("it answered %d", resp.StatusCode),
	}
}

// sign gives a request the headers of Standard Webhooks. Its id is the same at every try.
func (h *hooks) sign(req *http.Request, id skein.CallID, now time.Time, body []byte) {
	name, stamp := id.String(), strconv.FormatInt(now.Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "skein")
	req.Header.Set("Webhook-Id", name)
	req.Header.Set("Webhook-Timestamp", stamp)
	var all []string
	for _, key := range h.keys {
		all = append(all, hookSignature(key, name, stamp, body))
	}
	if len(all) > 0 {
		req.Header.Set("Webhook-Signature", strings.Join(all, " "))
	}
}

func hookSignature(key []byte, id, stamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%s.", id, stamp)
	_, _ = mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// hookBody is the news of a call's end. A large output is left out: it can be asked for.
func hookBody(rec *Record) ([]byte, error) {
	call, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(toCall(rec))
	if err != nil {
		return nil, err
	}
	type data struct {
		Call   json.RawMessage `json:"call"`
		Output []byte          `json:"output,omitempty"`
	}
	news := struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      data   `json:"data"`
	}{"call." + strings.ToLower(rec.State.String()), rec.Ended.UTC().Format(time.RFC3339Nano), data{Call: call}}
	if len(rec.Output) <= hookOutput {
		news.Data.Output = rec.Output
	}
	return json.Marshal(news)
}

func hookHostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}

func parseNetworks(s string) (nets []netip.Prefix, err error) {
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if addr, err := netip.ParseAddr(part); err == nil {
			nets = append(nets, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		n, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("--webhook-allow: %q is no network: want 10.1.0.0/16 or 192.168.7.1", part)
		}
		nets = append(nets, n)
	}
	return nets, nil
}
