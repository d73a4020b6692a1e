// Package network holds what is true about networks: which subnet and address
// comes next, which host port is free, what a container's /etc/hosts and
// /etc/resolv.conf say, and which packets the firewall lets through. It does
// no IO and takes no lock; the engine calls it under its own.
//
// Entry points: ChooseSubnet and NewAddresses for addresses, NewPortTable and
// WantedPorts for published ports, Hosts and ResolvConf for files, and the
// plan types that netdriver carries out (Bridge, SandboxPlan, Ruleset, Names).
package network
