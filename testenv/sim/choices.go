package sim

import "math/rand/v2"

// choices is where everything that may go one way or another is decided, by a seed or by a tape of an earlier schedule.
type choices struct {
	random *rand.PCG
	tape   []uint16 // of all choices so far; with replay, those to make
	at     int
	replay bool
	calm   bool // nothing goes wrong any more
}

// draw is a number below n; 0 is what happens when nothing goes wrong.
func (c *choices) draw(n int) int {
	if c.calm || n <= 1 {
		return 0
	}
	if c.replay {
		if c.at >= len(c.tape) {
			return 0
		}
		c.at++
		return int(c.tape[c.at-1]) % n
	}
	v := int(c.random.Uint64() >> 33 % uint64(n))
	c.tape = append(c.tape, uint16(v))
	return v
}

// chance is true so many times of a thousand.
func (c *choices) chance(perMille int) bool {
	return perMille > 0 && c.draw(1000) >= 1000-perMille
}
