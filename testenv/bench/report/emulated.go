package report

import (
	"fmt"
	"strings"
)

// emulated is the part of the page about the comparison in a virtual machine.
func emulated(b *strings.Builder, d Data) {
	b.WriteString(emulatedOpening)
	made(b, d)
	all := grouped(d.Runs)
	for _, group := range byProgramAndLink(all) {
		fmt.Fprintf(b, "### %s, %s\n\n", group[0].Program, group[0].Link)
		row(b, "memory", "load", "by", "moves", "blackout", "client gap", "total", "on the wire", "rounds", "predicted")
		rule(b, 10)
		for _, s := range group {
			best := find(group, func(o series) bool { return o.Case == s.Case && o.method == d.Best })
			row(b, bytesText(float64(s.Size)), s.loadText(), s.method, s.movesText(),
				s.beside(best, blackout, millisText), s.beside(best, gap, millisText), s.beside(best, total, millisText), s.beside(best, wire, bytesText),
				s.of(rounds).text(figure), s.of(predicted).text(millisText))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(b, "In bold: how many times %s's, medians of the same memory and load.\n", d.Best)
	list(b, "These did not get through:", failures(all))
	show(b, emulatedPictures(d))
	list(b, "Left out:", d.LeftOut)
}

// beside is a property's spread, and how many times the best method's it is.
func (s series) beside(best []series, property func(Run) (float64, bool), words func(float64) string) string {
	own := s.of(property)
	if len(best) == 0 || own.n == 0 || best[0].of(property).median == 0 {
		return own.text(words)
	}
	return fmt.Sprintf("**%s**: %s", figure(own.median/best[0].of(property).median), own.text(words))
}

const emulatedOpening = `
## On a kernel with soft-dirty, emulated

CRIU's own rounds (` + "`criu pre-dump`" + `) and go-criu's package phaul need a kernel with soft-dirty tracking. Here such a kernel runs in a virtual
machine, whose one processor is emulated in software: everything takes ten times as long and longer, so the times say nothing about
hardware and are not to be held against those above. What is to be read is how the methods compare with each other, on the same
hosts, over the same link, with the same program, and that with care: not everything is slowed alike. Measured on two
cores of an AMD EPYC, s2 and zstd take 10 times as long in there, a copy 15 times, ChaCha20, by which OpenSSH encrypts, 41 times,
drover's digest of each page 52 times, and AES-GCM, by which it encrypts, 170 times (` + "`go test ./testenv/vm -run '^$' -bench Emulation`" + `).
Beside those above the program is moved by

- ` + "`" + PreDumps + "`" + `: rounds of ` + "`criu pre-dump`" + ` while the program runs, each sent as the dump is, until fewer than 64 pages are
  left, or no fewer than in the round before, or eight were made; then a dump of what has changed since. The SSH connection is the same;
- ` + "`" + Phaul + "`" + `: a small program around the package (testenv/bench/phaul). CRIU's pages go through a forwarded socket of that
  SSH connection as they are; the rest of the dump is sent as above, and CRIU holds the source until the target runs. It makes one
  round only: its rule compares the first round with none before it, takes that for growth, and stops (go-criu 8.3, phaul/client.go).

The raw data is in [results-vm.json](results-vm.json). It was made with
`

// emulatedPictures are the plots of the comparison in a virtual machine.
func emulatedPictures(d Data) []picture {
	const load = 10 // per cent a second
	p := picture{file: "blackout-memory-vm.svg", says: fmt.Sprintf("Blackout against memory, dirtier with %d %% of it rewritten a second, emulated", load)}
	p.plot = draw(find(grouped(d.Runs), func(s series) bool { return s.Program == "dirtier" && s.Load == load }),
		func(s series) string { return s.method }, func(s series) float64 { return float64(s.Size) }, blackout)
	p.title, p.across, p.xText = p.says, "memory", bytesText
	p.up, p.yText = "blackout, ms (emulated)", figure
	if len(p.lines) == 0 {
		return nil
	}
	return []picture{p}
}
