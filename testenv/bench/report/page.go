package report

import (
	"fmt"
	"slices"
	"strings"
)

// page is README.md.
func page(r Report) string {
	d := r.Data
	var b strings.Builder
	b.WriteString(opening)
	made(&b, d)
	links(&b, d.Links)

	all := grouped(d.Runs)
	fmt.Fprintf(&b, "## Figures to reach\n\nJudged by the moves of %s.\n\n", d.Best)
	row(&b, "figure", "to reach", "measured", "")
	rule(&b, 4)
	for _, g := range goals(d) {
		row(&b, g.what, g.want, g.got, verdictMark(g.verdict))
	}
	list(&b, "These did not get through:", failures(all))
	b.WriteString("\n## Side by side\n\nMedians, with the least and the greatest where there were several moves.\n")
	tables(&b, all)
	show(&b, pictures(d))
	b.WriteString(columns)
	list(&b, "## Left out", d.LeftOut)
	if r.Emulated != nil {
		emulated(&b, *r.Emulated)
	}
	return b.String()
}

// made says how data came to be, and where.
func made(b *strings.Builder, d Data) {
	fmt.Fprintf(b, "\n    %s\n\n", strings.ReplaceAll(d.Command, "\n", "\n    "))
	fmt.Fprintf(b, "%s, in %s, on %d × %s with %s of memory, Linux %s, CRIU %s, %s, drover %s; the load average before it began was %s. The hosts are namespaces of this one machine and share its processors "+
		"with the links, the coordinators and the load. No host keeps pages of a tree that it has had before (keep_store: 0).\n\n", d.Date.UTC().Format("2006-01-02 15:04 UTC"), d.Took.text(),
		d.Machine.Processors, d.Machine.Processor, bytesText(float64(d.Machine.Memory)), d.Machine.Kernel, d.Machine.CRIU, d.Machine.Go, d.Machine.Drover, figure(d.Machine.Load))
}

// list is nothing where there are no items.
func list(b *strings.Builder, head string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n\n", head)
	for _, item := range items {
		fmt.Fprintf(b, "- %s\n", item)
	}
}

func show(b *strings.Builder, all []picture) {
	for _, p := range all {
		fmt.Fprintf(b, "\n![%s](%s)\n", p.says, p.file)
	}
}

const opening = `# drover beside what people do by hand

This page and its pictures are written by ` + "`make bench-report`" + `; the raw data of every move is in [results.json](results.json). On the same
hosts, over the same link, the same program is moved by

- ` + "`" + Baseline + "`" + `: ` + "`criu dump` to a tmpfs, then `tar | zstd -1 | ssh`, then `criu restore`" + ` on the other host. The SSH connection is made beforehand;
- drover, with each tracker that works on this machine's kernel.

It was made with
`

const columns = `
What the columns mean:

- blackout: from the freeze to the first instruction on the other host. drover's is what its record says; the baseline's is counted
  from CRIU's own note of the freeze to the end of ` + "`criu restore`" + `.
- client gap: the longest time in which a client that asks a thousand times a second had no answer, TCP's own waits included; the
  dirtier and the Python programs, which have no client, time their own turns.
- total: from the command to the first instruction on the other host.
- on the wire: what the source's network card sent in that time, SSH included.
- rounds: of copying while the program runs. predicted: the blackout as drover expected it when it granted the freeze.
- memory: on the source, above the tree's own. drover: the peak resident memory of its worker; baseline: the images in the tmpfs.
- load: what was asked for. What the program did before the move is in results.json: over a long link one connection of writes may
  not reach its rate.
- slow-down: the part of its operations that the program lost while it was copied. Loads that ask for a set rate show it only when
  the rate is no longer met. while filled in: the same while the released program's memory is put in place, from its first operation on; it is
  told where that took a tenth of a second at least.
- redis holds JSON documents of 1000 bytes, the dirtier pages of which one word in eight is noise, python dictionaries with a few
  members, or, as "zero and repeated pages", two strings. The size is what they were told to hold.
`

func links(b *strings.Builder, all []Link) {
	row(b, "link", "delay, one way", "made by", "one TCP connection carries")
	rule(b, 4)
	for _, l := range all {
		delay := "–"
		if l.Delay > 0 {
			delay = millisText(float64(l.Delay))
		}
		by := "a relay (docs/adr/0002)"
		if !l.Shaped {
			by = "nothing: a plain veth"
		}
		row(b, l.Name, delay, by, bitsText(l.Carried))
	}
	b.WriteString("\nWhere the machine's own links carry less than a link's rate, that link is a plain veth: a relay would only make it slower. The coordinators' " +
		"cables are like those of the two hosts, each with half of the delay; the client's has no shape.\n\n")
}

// tables has one table for each program and link.
func tables(b *strings.Builder, all []series) {
	for _, group := range byProgramAndLink(all) {
		fmt.Fprintf(b, "\n### %s, %s\n\n", group[0].Program, group[0].Link)
		row(b, "memory", "load", "by", "moves", "blackout", "client gap", "total", "on the wire", "rounds", "predicted", "memory", "slow-down", "while filled in")
		rule(b, 13)
		for _, s := range group {
			row(b, bytesText(float64(s.Size)), s.loadText(), s.method, s.movesText(),
				s.of(blackout).text(millisText), s.of(gap).text(millisText), s.of(total).text(millisText), s.of(wire).text(bytesText),
				s.of(rounds).text(figure), s.of(predicted).text(millisText), s.of(memory).text(bytesText), s.of(Run.SlowDown).text(percentText),
				s.of(Run.SlowDownFilling).text(percentText))
		}
	}
}

// byProgramAndLink cuts what is in order of them into pieces that have both in common.
func byProgramAndLink(all []series) (groups [][]series) {
	for len(all) > 0 {
		head := all[0]
		n := slices.IndexFunc(all, func(s series) bool { return s.Program != head.Program || s.Link != head.Link })
		if n < 0 {
			n = len(all)
		}
		groups, all = append(groups, all[:n]), all[n:]
	}
	return groups
}

func verdictMark(verdict string) string {
	if verdict == missed {
		return "**missed**"
	}
	return verdict
}

func row(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		fmt.Fprintf(b, "| %s ", strings.ReplaceAll(c, "|", `\|`))
	}
	b.WriteString("|\n")
}

func rule(b *strings.Builder, n int) { b.WriteString(strings.Repeat("|---", n) + "|\n") }
