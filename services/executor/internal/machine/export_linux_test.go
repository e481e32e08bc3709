package machine

// Scans are the ways to learn which pages are dirty.
var Scans = map[string]dirtyScan{"kernel": scanByKernel, "read": scanByRead, "none": nil}

// ScanBy makes resets use one, and copy at most most pages. It reports whether this system has it.
func (m *Machine) ScanBy(how string, most int) bool {
	t, ok := m.tier.(*mapped)
	if !ok || Scans[how] != nil && (pagemap() < 0 || !scanWorks(Scans[how])) {
		return false
	}
	t.dirty, t.most = Scans[how], most
	return true
}

// SmallImage is the number of pages up to which images are copied.
const SmallImage = smallImage
