"""Network namespaces as machines: each has a loopback interface and one private link.

They hang on a bridge in a namespace of its own, which leads nowhere. Each machine also
has a second interface, to which its default route goes: what it sends there is meant
for somebody else, and counted.
"""

import contextlib
import json
import os
import signal
import subprocess

PRIVATE = "10.77.0"  # of these namespaces alone
OTHERS = "198.51.100"  # reserved for documentation: nobody has these addresses


def ip(*words):
    """Runs `ip`; returns its output."""
    command = ["ip", *" ".join(words).split()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """Machines `1..count` at `10.77.0.1`, `10.77.0.2`, ... that reach one another.

    Raises:
      OSError: namespaces cannot be made here; one line.
    """

    def __init__(self, count):
        self._name = f"coded{os.getpid()}"
        self.hub = f"{self._name}hub"
        self.machines = range(1, count + 1)
        try:
            self._make_namespace(self.hub)
            ip(f"-n {self.hub} link add bridge0 type bridge")
            ip(f"-n {self.hub} link set dev bridge0 up")
            for machine in self.machines:
                self._make_machine(machine)
        except BaseException:
            self.close()
            raise

    def name(self, machine):
        """The namespace of a machine."""
        return f"{self._name}m{machine}"

    def address(self, machine):
        return f"{PRIVATE}.{machine}"

    def inside(self, machine):
        """The beginning of a command that runs on a machine."""
        return ["ip", "netns", "exec", self.name(machine)]

    def pids(self, machine):
        """All processes of a machine."""
        return {int(x) for x in ip(f"netns pids {self.name(machine)}").split()}

    def cut_off(self, machine):
        ip(f"-n {self.hub} link set dev port{machine} down")

    def join(self, machine):
        ip(f"-n {self.hub} link set dev port{machine} up")

    def packets_to_others(self):
        """How many packets all machines have sent that were not for one another."""
        count = 0
        for machine in self.machines:
            text = ip(f"-n {self.name(machine)} -j -s link show dev away")
            count += json.loads(text)[0]["stats64"]["tx"]["packets"]
        return count

    def close(self):
        """Ends all processes of the namespaces, and removes them."""
        for name in ip("netns list").split():
            if not name.startswith(self._name):
                continue
            for pid in ip(f"netns pids {name}").split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            ip(f"netns del {name}")

    def _make_namespace(self, name):
        ip(f"netns add {name}")
        for which in ("all", "default"):  # it sends packets unasked
            switch = f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6"
            command = f"test ! -e {switch} || echo 1 > {switch}"
            inside = ["ip", "netns", "exec", name, "sh", "-c", command]
            subprocess.run(inside, check=True)
        ip(f"-n {name} link set dev lo up")

    def _make_machine(self, machine):
        name, hub = self.name(machine), self.hub
        self._make_namespace(name)
        ends = {"eth0": f"port{machine}", "away": f"nowhere{machine}"}
        for own, other in ends.items():
            ip(f"-n {hub} link add {other} type veth peer name {own} netns {name}")
            ip(f"-n {hub} link set dev {other} up")
            ip(f"-n {name} link set dev {own} up")
        ip(f"-n {hub} link set dev port{machine} master bridge0")
        ip(f"-n {name} addr add {self.address(machine)}/24 dev eth0")
        ip(f"-n {name} addr add {OTHERS}.{machine}/24 dev away")
        ip(f"-n {name} route add default dev away")
