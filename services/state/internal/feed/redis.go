// Package feed hears what is published in Redis, over one connection, however many listen.
package feed

import (
	"context"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Heard is told what a channel said. If fresh is set it is that the channel can be heard from now on, again after a lost
// connection: what was said before may have been missed. It must not block, nor call the Feed.
type Heard func(channel, message string, fresh bool)

// Feed is the subscriptions of a process.
type Feed struct {
	client redis.UniversalClient

	mu       sync.Mutex
	sub      *redis.PubSub // nil until somebody listens
	channels map[string]*channel
	closed   bool
	done     chan struct{}
}

type channel struct {
	open      bool // Redis has confirmed the subscription
	listeners map[*Listener]struct{}
}

// Listener is one who hears some channels. Its methods may not be called concurrently.
type Listener struct {
	feed  *Feed
	heard Heard
	names map[string]struct{}
}

// New makes a Feed that connects when somebody listens.
func New(client redis.UniversalClient) *Feed {
	return &Feed{client: client, channels: map[string]*channel{}, done: make(chan struct{})}
}

// Listen makes a listener that hears nothing yet. Close it.
func (f *Feed) Listen(heard Heard) *Listener {
	return &Listener{f, heard, map[string]struct{}{}}
}

// Add makes it hear more channels; each is said to be fresh once it is heard. Redis being away is no error: it is heard when it is back.
func (l *Listener) Add(ctx context.Context, names ...string) {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if f.sub == nil {
		f.sub = f.client.Subscribe(context.WithoutCancel(ctx))
		go f.run(f.sub.ChannelWithSubscriptions())
	}
	var missing []string
	for _, name := range names {
		if _, has := l.names[name]; has {
			continue
		}
		l.names[name] = struct{}{}
		c := f.channels[name]
		if c == nil {
			c = &channel{listeners: map[*Listener]struct{}{}}
			f.channels[name] = c
			missing = append(missing, name)
		}
		c.listeners[l] = struct{}{}
		if c.open {
			l.heard(name, "", true)
		}
	}
	if len(missing) > 0 {
		_ = f.sub.Subscribe(context.WithoutCancel(ctx), missing...) // kept, and done again with the next connection
	}
}

// Remove makes it hear channels no more.
func (l *Listener) Remove(ctx context.Context, names ...string) {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	var unheard []string
	for _, name := range names {
		if _, has := l.names[name]; !has {
			continue
		}
		delete(l.names, name)
		c := f.channels[name]
		delete(c.listeners, l)
		if len(c.listeners) == 0 {
			delete(f.channels, name)
			unheard = append(unheard, name)
		}
	}
	if len(unheard) > 0 && !f.closed {
		_ = f.sub.Unsubscribe(context.WithoutCancel(ctx), unheard...)
	}
}

// Close makes it hear nothing more.
func (l *Listener) Close() {
	names := make([]string, 0, len(l.names))
	for name := range l.names {
		names = append(names, name)
	}
	l.Remove(context.Background(), names...)
}

func (f *Feed) run(in <-chan any) {
	defer close(f.done)
	for m := range in {
		f.mu.Lock()
		switch m := m.(type) {
		case *redis.Message:
			f.tell(m.Channel, m.Payload, false)
		case *redis.Subscription:
			if m.Kind == "subscribe" {
				f.tell(m.Channel, "", true)
			}
		}
		f.mu.Unlock()
	}
}

func (f *Feed) tell(name, message string, fresh bool) {
	c := f.channels[name]
	if c == nil {
		return
	}
	c.open = c.open || fresh
	for l := range c.listeners {
		l.heard(name, message, fresh)
	}
}

// Close ends all; nobody is told.
func (f *Feed) Close() error {
	f.mu.Lock()
	f.closed = true
	sub := f.sub
	f.mu.Unlock()
	if sub == nil {
		return nil
	}
	err := sub.Close()
	<-f.done
	return err
}
