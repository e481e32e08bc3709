// Command sgd learns a sparse linear classifier by stochastic gradient descent in the manner of HOGWILD: functions take a part of
// the examples each, and all change the same weights without locks. Weights and examples are values that are mapped, so functions
// on one executor work in the same memory. Executors exchange what they changed from time to time.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	skein "skein.dev/sdk/go"
)

const mostWorkers = 64

// Task is what a worker is given, as the input of a call of this function.
type Task struct {
	Shape
	Role     string // learn, copy or score
	From, To int    // its examples
	Epoch    int
	Interval int // examples between exchanges
}

// Problem is views of a part of the examples, and of all weights.
type Problem struct {
	columns *skein.Matrix[uint32]
	values  *skein.Matrix[float32]
	labels  *skein.Array[float32]
	weights *skein.Array[float64]
}

//lint:ignore U1000 the host calls it
//go:wasmexport handle
func handle() int32 {
	if in := skein.Input(); len(in) > 0 && in[0] == '{' {
		return skein.Exit(work(in))
	}
	return skein.Exit(run(string(skein.Input())))
}

func main() {}

// open opens the examples of a task. They are made if there are none and total is set.
func open(s Shape, from, to, total int) (p Problem, err error) {
	flags := skein.StateReadOnly
	if total > 0 {
		flags = 0
	}
	if p.columns, err = skein.OpenMatrixRows[uint32](s.key("columns"), from, to-from, total, s.Nonzeros, flags); err != nil {
		return p, err
	}
	if p.values, err = skein.OpenMatrixRows[float32](s.key("values"), from, to-from, total, s.Nonzeros, flags); err != nil {
		return p, err
	}
	p.labels, err = skein.OpenArrayPart[float32](s.key("labels"), from, to-from, total, flags)
	return p, err
}

// make generates the examples. The labels are shared last, and say that all is there.
func (s Shape) make() error {
	size, err := skein.StateSize(s.key("labels"))
	if size == 4*int64(s.Examples) || err != nil && !errors.Is(err, skein.ENOENT) {
		return err
	}
	p, err := open(s, 0, s.Examples, s.Examples)
	if err != nil {
		return err
	}
	for i := range s.Examples {
		p.labels.Data[i] = s.generate(i, p.columns.Row(i), p.values.Row(i))
	}
	return errors.Join(p.columns.Push(), p.values.Push(), p.labels.Push())
}

// work does a task.
func work(input []byte) error {
	var t Task
	if err := json.Unmarshal(input, &t); err != nil {
		return err
	}
	p, err := open(t.Shape, t.From, t.To, 0)
	if err != nil {
		return err
	}
	if p.weights, err = skein.OpenArray[float64](t.key("weights"), t.Features, skein.StatePull); err != nil {
		return err
	}
	switch t.Role {
	case "learn":
		return t.learn(p)
	case "copy":
		return t.copy(p)
	}
	return t.score(p)
}

// slice is how many examples there are between looks at the clock.
const slice = 64

// learn learns its examples in the shared weights. The executor's clock, which never leaves it, counts the examples that all
// workers here have learnt: whoever makes it pass an interval exchanges for all. A race on it does no harm.
func (t Task) learn(p Problem) error {
	clock, err := skein.OpenArray[int64](t.key("clock"), 1, skein.StateLocal)
	if err != nil {
		return err
	}
	for i := t.From; i < t.To; i += slice {
		end := min(i+slice, t.To)
		p.steps(p.weights.Data, i, end, t.Epoch)
		was := clock.Data[0]
		now := was + int64(end-i)
		clock.Data[0] = now
		if was/int64(t.Interval) == now/int64(t.Interval) {
			continue
		}
		if err := errors.Join(p.weights.Push(), p.weights.Pull()); err != nil {
			return err
		}
	}
	return p.weights.Push()
}

// copy does the same without shared memory: it gets all weights, learns some examples, and sets all weights. What others set in
// between is lost.
func (t Task) copy(p Problem) error {
	key, bytes := t.key("weights"), make([]byte, 8*t.Features)
	for i := t.From; i < t.To; i += t.Interval {
		if n, err := skein.ReadAppended(key, 0, bytes); err != nil || n != len(bytes) {
			return fmt.Errorf("%d bytes of weights: %w", n, errors.Join(err, skein.EINVAL))
		}
		p.steps(numbers(bytes), i, min(i+t.Interval, t.To), t.Epoch)
		if err := errors.Join(skein.SetState(key, bytes), skein.PushState(key)); err != nil {
			return err
		}
	}
	return nil
}

func (p Problem) steps(weights []float64, from, to, epoch int) {
	for i := from; i < to; i++ {
		step(weights, p.columns.Row(i), p.values.Row(i), p.labels.Data[i-p.labels.First], rateOf(epoch))
	}
}

// score puts out how many of its examples the weights classify as they are labelled.
func (t Task) score(p Problem) error {
	right := 0
	for i := t.From; i < t.To; i++ {
		if margin(p.weights.Data, p.columns.Row(i), p.values.Row(i), p.labels.Data[i-t.From]) > 0 {
			right++
		}
	}
	return skein.Output(strconv.AppendInt(nil, int64(right), 10))
}

// all has n calls of this function do a part of the task each, and adds up what they put out.
func all(t Task, n int) (sum int, err error) {
	workers := make([]skein.Child, n)
	for i := range workers {
		t.From, t.To = t.Examples*i/n, t.Examples*(i+1)/n
		input, err := json.Marshal(t)
		if err != nil {
			return 0, err
		}
		if workers[i], err = skein.Chain(os.Args[0], input); err != nil {
			return 0, err
		}
	}
	for _, w := range workers {
		exit, err := w.Await()
		if err != nil || exit != 0 {
			return 0, fmt.Errorf("a worker exited with %d: %w", exit, errors.Join(err, w.Err()))
		}
		out, err := w.Output()
		if err != nil {
			return 0, err
		}
		right, _ := strconv.Atoi(string(out)) // learners put out nothing
		sum += right
	}
	return sum, nil
}

// options are the words "name=number" of the input.
func options(input string) (t Task, workers, epochs int, err error) {
	t = Task{Shape: Shape{Examples: 16384, Features: 65536, Nonzeros: 32, Seed: 1}, Role: "learn", Interval: 4096}
	workers, epochs = 4, 3
	copying := 0
	known := map[string]struct {
		to          *int
		least, most int
	}{
		"examples": {&t.Examples, mostWorkers, 1 << 20}, "features": {&t.Features, 1, 1 << 23}, "nonzeros": {&t.Nonzeros, 1, 1 << 10},
		"seed": {&t.Seed, 0, 1<<31 - 1}, "workers": {&workers, 1, mostWorkers}, "epochs": {&epochs, 1, 1000},
		"interval": {&t.Interval, 1, 1 << 20}, "copy": {&copying, 0, 1},
	}
	for _, word := range strings.Fields(input) {
		name, value, _ := strings.Cut(word, "=")
		o := known[name]
		n, err := strconv.Atoi(value)
		if o.to == nil || err != nil || n < o.least || n > o.most {
			return t, 0, 0, fmt.Errorf("%q is no option, or out of its range", word)
		}
		*o.to = n
	}
	if copying == 1 {
		t.Role = "copy"
	}
	return t, workers, epochs, nil
}

func run(input string) error {
	t, workers, epochs, err := options(input)
	if err != nil {
		return err
	}
	if err := t.make(); err != nil {
		return err
	}
	weights := t.key("weights")
	if err := errors.Join(skein.SetState(weights, make([]byte, 8*t.Features)), skein.PushState(weights)); err != nil {
		return err
	}
	for t.Epoch = range epochs {
		if _, err := all(t, workers); err != nil {
			return err
		}
	}
	t.Role = "score"
	right, err := all(t, workers)
	if err != nil {
		return err
	}
	return skein.Output(fmt.Appendf(nil, "%d of %d right after %d epochs by %d workers\n", right, t.Examples, epochs, workers))
}
