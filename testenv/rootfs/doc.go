// Package rootfs builds the Debian root file system that test hosts and test VMs run on, once, and says where it is.
//
// It owns the recipe: Debian trixie with criu 4.2.1 from forky and the programs the tests move. It never starts anything in the
// root file system and never changes it after the build: hosts write to a layer of their own. Start with Build and Dir.
package rootfs
