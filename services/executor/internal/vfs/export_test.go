package vfs

// Nodes counts what the layer has in its tree, whiteouts included, without the root.
func (l *Layer) Nodes() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	todo := []*node{&l.root}
	for len(todo) > 0 {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, e := range d.dir.entries {
			if n++; e.n != nil {
				todo = append(todo, e.n)
			}
		}
	}
	return n
}

// Pages is how much of a directory's reading is kept.
func (o *Open) Pages() (marks, entries int) { return len(o.listing.pages), len(o.listing.page) }
