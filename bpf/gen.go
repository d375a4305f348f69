// SPDX-License-Identifier: GPL-2.0-only

package bpf

//go:generate go tool bpf2go -target amd64 -cc clang -cflags "-O2 -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu" -type event -type kind -type target -type go_layout audit audit.c
//go:generate sed -i "1i // SPDX-License-Identifier: GPL-2.0-only\\n" audit_x86_bpfel.go
