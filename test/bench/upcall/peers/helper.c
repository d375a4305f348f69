// SPDX-License-Identifier: GPL-2.0-only
/* helper.c - what call_usermodehelper starts: it succeeds at once */

int main(void)
{
	return 0;
}
