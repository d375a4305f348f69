# SPDX-License-Identifier: GPL-2.0-only
"""A BMC of pyghmi's that asks o2fence's power server; its settings come on standard input."""
import socket
import sys
import uuid

from pyghmi.ipmi.bmc import Bmc

addr, port, user, password, _, power_port, token = sys.stdin.read().split()


def ask(question):
    with socket.create_connection(("127.0.0.1", int(power_port))) as s:
        s.sendall(f"{token} {question}\n".encode())
        status, _, text = s.makefile().read().partition("\n")
    return status == "0", text


class PoweredBmc(Bmc):
    def get_power_state(self):
        ok, text = ask("get power")
        if not ok:
            raise NotImplementedError
        return int(text.strip() == "power:1")

    def power_off(self):
        return 0 if ask("set power 0")[0] else 0xFF

    def power_on(self):
        return 0 if ask("set power 1")[0] else 0xFF


PoweredBmc({user: password}, port=int(port), address=addr, bmcuuid=uuid.uuid4()).listen()
