package session

import "time"

// stillFor is for how long what fills in a tree's memory may stand still. The kernel throttles who goes over a cgroup's memory.high by 2 s at
// most between two pages; a disk may need longer for one.
const stillFor = 10 * time.Second

func (r *Registry) stillFor() time.Duration {
	if r.cfg.StillFor > 0 {
		return r.cfg.StillFor
	}
	return stillFor
}

// stillness is for how long a counter of beats, that should rise, has stood still.
type stillness struct {
	beats  uint64
	looked time.Time
	lasts  time.Duration
}

// look says for how long no beat has come. Only time counts in which it was looked: a host that was suspended, or this process stopped, says
// nothing of the other one. 0 beats mean that it is not known.
func (s *stillness) look(beats uint64, now time.Time) time.Duration {
	if beats == 0 || beats != s.beats {
		s.lasts = 0
	} else {
		s.lasts += min(now.Sub(s.looked), 2*lookRunning)
	}
	s.beats, s.looked = beats, now
	return s.lasts
}
