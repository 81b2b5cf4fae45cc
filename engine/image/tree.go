package image

import "fmt"

// Task is a process as its images have it.
type Task struct {
	Pid, Parent int
	Threads     []int // the main one first
	State       TaskState
}

// TaskState is the state a process was in when it was frozen (compel/include/uapi/task-state.h).
type TaskState int

const (
	Alive   TaskState = 1
	Stopped TaskState = 3 // by a signal, before the dump
	Zombie  TaskState = 6
)

// maxTasks bounds the processes of a tree; Linux has no more pids than that.
const maxTasks = 1 << 22

// Inventory is what inventory.img says of a dump as a whole.
type Inventory struct {
	Version uint32
}

// ReadInventory reads dir/inventory.img, the last file a dump writes: a directory without it is torn.
func ReadInventory(dir string) (Inventory, error) {
	const name = "inventory.img"
	var inv Inventory
	n := 0
	err := eachRecord(dir, name, magicInventory, func(b []byte) error {
		n++
		f, ok := parse(b)
		version, has := f.one(1)
		if !ok || !has {
			return bad(name, "its entry cannot be read")
		}
		inv.Version = uint32(version)
		return nil
	})
	if err == nil && n != 1 {
		err = bad(name, "it has %d entries", n)
	}
	return inv, err
}

// ReadTasks reads the processes of a dump from pstree.img and their core images, the root first.
func ReadTasks(dir string) ([]Task, error) {
	const name = "pstree.img"
	var tasks []Task
	err := eachRecord(dir, name, magicPstree, func(b []byte) error {
		f, ok := parse(b)
		pid, has := f.one(1)
		if !ok || !has || pid == 0 || pid > maxTasks || len(tasks) >= maxTasks {
			return bad(name, "entry %d cannot be read", len(tasks))
		}
		parent, _ := f.one(2)
		t := Task{Pid: int(pid), Parent: int(parent)}
		for tid := range f.numbers(5) {
			t.Threads = append(t.Threads, int(tid))
		}
		tasks = append(tasks, t)
		return nil
	})
	if err == nil && len(tasks) == 0 {
		err = bad(name, "it has no process")
	}
	for i := range tasks {
		if err != nil {
			return nil, err
		}
		tasks[i].State, err = readState(dir, tasks[i].Pid)
	}
	return tasks, err
}

// readState reads the state of a process from its core image: field 1 of the message in field 3.
func readState(dir string, pid int) (TaskState, error) {
	name := fmt.Sprintf("core-%d.img", pid)
	var state uint64
	err := eachRecord(dir, name, magicCore, func(b []byte) error {
		f, ok := parse(b)
		tc, has := f.message(3)
		if !ok || !has {
			return bad(name, "its entry cannot be read")
		}
		state, _ = tc.one(1)
		return nil
	})
	if err == nil && state == 0 {
		err = bad(name, "it says no state")
	}
	return TaskState(state), err
}

// StoppedBefore lists the processes, by pid in their own namespace, that were stopped by a signal before the dump in dir. They
// are what engine.Engine.Continue is to leave stopped.
func StoppedBefore(dir string) ([]int, error) {
	tasks, err := ReadTasks(dir)
	var pids []int
	for _, t := range tasks {
		if t.State == Stopped {
			pids = append(pids, t.Pid)
		}
	}
	return pids, err
}
