package machine

import "skein.dev/services/executor/internal/pagemap"

// Scans are the ways to learn which pages are dirty.
var Scans = map[string]pagemap.Scan{"kernel": pagemap.ByKernel(pagemap.Private), "read": pagemap.ByRead(pagemap.Private), "none": nil}

// ScanBy makes resets use one, and copy at most most pages. It reports whether this system has it.
func (m *Machine) ScanBy(how string, most int) bool {
	t, ok := m.tier.(*mapped)
	if !ok || Scans[how] != nil && !pagemap.Works(Scans[how], pagemap.Private) {
		return false
	}
	t.dirty, t.most = Scans[how], most
	return true
}

// SmallImage is the number of pages up to which images are copied.
const SmallImage = smallImage
