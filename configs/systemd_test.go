package configs

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unit reads a unit's settings; a key that stands there twice has both values.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		if !ok {
			t.Fatalf("%s: %q is no setting", name, line)
		}
		settings[key] = append(settings[key], strings.Fields(value)...)
	}
	return settings
}

// inherited are settings that trees which the worker starts would have too, and take with them to other hosts.
var inherited = []string{
	"NoNewPrivileges", "SystemCallFilter", "SystemCallArchitectures", "RestrictNamespaces", "RestrictAddressFamilies", "RestrictRealtime", "RestrictSUIDSGID",
	"LockPersonality", "MemoryDenyWriteExecute", "PrivateTmp", "PrivateDevices", "PrivateNetwork", "ProtectSystem", "ProtectHome", "ProtectProc", "ProtectClock",
	"ProtectKernelModules", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectHostname", "ProtectControlGroups", "UMask", "DeviceAllow", "IPAddressDeny",
}

func TestTheWorkersTreesInheritNoHardeningOfItsUnit(t *testing.T) {
	settings := unit(t, "drover-worker.service")
	for _, key := range inherited {
		if _, set := settings[key]; set {
			t.Errorf("%s=: a tree would have it for life", key)
		}
	}
	for key, want := range map[string]string{"KillMode": "process", "Delegate": "yes", "Type": "notify"} {
		if !slices.Equal(settings[key], []string{want}) {
			t.Errorf("%s=%v, not %s", key, settings[key], want)
		}
	}
}

func TestTheDropInForTheLeastChangesNothingElse(t *testing.T) {
	settings := unit(t, "drover-worker-least.conf")
	if caps := settings["CapabilityBoundingSet"]; len(settings) != 1 || len(caps) != 21 {
		t.Errorf("it sets %v", settings)
	}
	if _, set := unit(t, "drover-worker.service")["CapabilityBoundingSet"]; set {
		t.Error("the worker is limited by default: what was started with more could not move to it (docs/adr/0026)")
	}
}

func TestACoordinatorMayNothingButItsPortAndItsDirectory(t *testing.T) {
	settings := unit(t, "drover-coordinator.service")
	if caps := settings["CapabilityBoundingSet"]; len(caps) != 0 {
		t.Errorf("it has %v", caps)
	}
	for key, want := range map[string]string{
		"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "MemoryDenyWriteExecute": "yes",
		"ProtectKernelTunables": "yes", "ProtectKernelModules": "yes", "ProtectKernelLogs": "yes", "ProtectControlGroups": "yes", "ProtectClock": "yes",
		"ProtectProc": "invisible", "RestrictNamespaces": "yes", "RestrictRealtime": "yes", "RestrictSUIDSGID": "yes", "LockPersonality": "yes", "User": "drover",
		"StateDirectoryMode": "0700", "UMask": "0077", "SystemCallArchitectures": "native",
	} {
		if !slices.Equal(settings[key], []string{want}) {
			t.Errorf("%s=%v, not %s", key, settings[key], want)
		}
	}
	if filter := settings["SystemCallFilter"]; len(filter) == 0 || filter[0] != "@system-service" {
		t.Errorf("system calls: %v", filter)
	}
}

// TestSystemdReadsTheUnits asks systemd itself, where it is there.
func TestSystemdReadsTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Logf("not asked: %v", err) // the other tests parse them
		return
	}
	dir := t.TempDir()
	for _, name := range []string{"drover-worker.service", "drover-coordinator.service"} {
		text, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		here := strings.ReplaceAll(string(text), "/usr/local/bin/drover", "/bin/true") // it wants to find the program
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(here), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, name+":") { // what it says of this machine's own units is not ours
				t.Errorf("%s (%v)", strings.TrimSpace(line), err)
			}
		}
	}
}
