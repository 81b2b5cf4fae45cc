package sim

// mostTries bounds the shrinking of one failure: one that is about a migration without an end runs long.
const mostTries = 6000

// shrink makes a failure's tape as short and as calm as it gets while it still fails, and writes its trace.
func (f *Failure) shrink() {
	tries := 0
	fails := func(tape []uint16) bool {
		if tries++; tries > mostTries {
			return false
		}
		w := newWorld(byTape(tape), &Coverage{}, false)
		return w.run() != nil
	}
	tape := f.Tape
	for better := true; better; {
		before := len(tape) + weight(tape)
		for size := len(tape); size > 0; size /= 2 {
			for at := 0; at < len(tape); {
				end := min(at+size, len(tape))
				if less := append(append([]uint16(nil), tape[:at]...), tape[end:]...); fails(less) {
					tape = less
					continue
				}
				if calm := calmed(tape, at, end); calm != nil && fails(calm) {
					tape = calm
				}
				at = end
			}
		}
		better = len(tape)+weight(tape) < before
	}
	for i, v := range tape { // a smaller number is a plainer choice
		for try := range min(v, 16) {
			less := append([]uint16(nil), tape...)
			if less[i] = try; fails(less) {
				tape = less
				break
			}
		}
	}
	for len(tape) > 0 && tape[len(tape)-1] == 0 {
		tape = tape[:len(tape)-1]
	}
	f.Tape = tape
	f.Trace, f.Err = Replay(tape)
}

// calmed is the tape with nothing going wrong from at to end, nil if nothing did.
func calmed(tape []uint16, at, end int) []uint16 {
	changed := false
	calm := append([]uint16(nil), tape...)
	for i := at; i < end; i++ {
		changed = changed || calm[i] != 0
		calm[i] = 0
	}
	if !changed {
		return nil
	}
	return calm
}

func weight(tape []uint16) (n int) {
	for _, v := range tape {
		if v != 0 {
			n++
		}
	}
	return n
}
