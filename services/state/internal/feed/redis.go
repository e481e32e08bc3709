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
	pending  map[string]struct{} // channels that came or went since Redis was told
	closed   bool

	wake chan struct{}
	stop chan struct{}
	done sync.WaitGroup
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
	return &Feed{
		client: client, channels: map[string]*channel{}, pending: map[string]struct{}{}, wake: make(chan struct{}, 1), stop: make(chan struct{}),
	}
}

// Listen makes a listener that hears nothing yet. Close it.
func (f *Feed) Listen(heard Heard) *Listener {
	return &Listener{f, heard, map[string]struct{}{}}
}

// Add makes it hear more channels; each is said to be fresh once it is heard. It waits for nothing: while Redis is away that is later.
func (l *Listener) Add(names ...string) {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	if f.sub == nil {
		f.sub = f.client.Subscribe(context.Background())
		f.done.Go(func() { f.run(f.sub.ChannelWithSubscriptions()) })
		f.done.Go(f.subscribe)
	}
	for _, name := range names {
		if _, has := l.names[name]; has {
			continue
		}
		l.names[name] = struct{}{}
		c := f.channels[name]
		if c == nil {
			c = &channel{listeners: map[*Listener]struct{}{}}
			f.channels[name] = c
			f.changed(name)
		}
		c.listeners[l] = struct{}{}
		if c.open {
			l.heard(name, "", true)
		}
	}
}

// changed has Redis told of a channel that came or went.
func (f *Feed) changed(name string) {
	f.pending[name] = struct{}{}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// subscribe tells Redis what is to be heard, alone: nobody else waits for a connection.
func (f *Feed) subscribe() {
	for {
		select {
		case <-f.stop:
			return
		case <-f.wake:
		}
		var came, went []string
		f.mu.Lock()
		for name := range f.pending {
			if f.channels[name] != nil {
				came = append(came, name)
			} else {
				went = append(went, name)
			}
		}
		clear(f.pending)
		f.mu.Unlock()
		// What fails is kept, and done with the next connection.
		if len(went) > 0 {
			_ = f.sub.Unsubscribe(context.Background(), went...)
		}
		if len(came) > 0 {
			_ = f.sub.Subscribe(context.Background(), came...)
		}
	}
}

// Remove makes it hear channels no more.
func (l *Listener) Remove(names ...string) {
	f := l.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		if _, has := l.names[name]; !has {
			continue
		}
		delete(l.names, name)
		c := f.channels[name]
		delete(c.listeners, l)
		if len(c.listeners) == 0 {
			delete(f.channels, name)
			f.changed(name)
		}
	}
}

// Close makes it hear nothing more.
func (l *Listener) Close() {
	names := make([]string, 0, len(l.names))
	for name := range l.names {
		names = append(names, name)
	}
	l.Remove(names...)
}

func (f *Feed) run(in <-chan any) {
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
	sub, again := f.sub, f.closed
	f.closed = true
	f.mu.Unlock()
	if sub == nil || again {
		return nil
	}
	close(f.stop)
	err := sub.Close()
	f.done.Wait()
	return err
}
