package drive

import (
	"drover/coordinator/api"
	"drover/internal/migration"
)

// answers are what both hosts had said when a change was proposed: the evidence that the record keeps beside it. A host that has
// neither answered nor failed to is left out.
func (v *View) answers() (all []api.Answer) {
	for _, role := range []migration.Role{migration.Source, migration.Target} {
		s := v.side(role)
		if s.Seen.IsZero() && s.Lost.IsZero() && s.Trouble == nil && !s.Removed {
			continue
		}
		all = append(all, s.answer(role))
	}
	return all
}

func (s *Side) answer(role migration.Role) api.Answer {
	a := api.Answer{Host: s.Host, Role: role, Heard: s.Seen, Boot: s.Boot, Silent: s.Lost, Removed: s.Removed, Absent: s.Absent}
	if s.Trouble != nil {
		a.Error = s.Trouble.Error()
	}
	if s.Known && !s.Absent {
		a.Take(s.Session)
	}
	return a
}
