// SPDX-License-Identifier: GPL-2.0-only
/* fence_bench.c - the least that a fence agent can be: it answers "metadata", and obeys all else */

#include <string.h>
#include <unistd.h>

static const char metadata[] =
	"<?xml version=\"1.0\"?>\n"
	"<resource-agent name=\"fence_bench\" shortdesc=\"fences nothing\">\n"
	"<longdesc>For benchmarks: says that it has done what it was told, and does nothing.</longdesc>\n"
	"<parameters><parameter name=\"plug\" unique=\"0\" required=\"0\"><content type=\"string\"/>"
	"<shortdesc>node</shortdesc></parameter></parameters>\n"
	"<actions><action name=\"off\"/><action name=\"on\"/><action name=\"status\"/>"
	"<action name=\"monitor\"/><action name=\"metadata\"/></actions>\n"
	"</resource-agent>\n";

int main(void)
{
	char in[8192];
	size_t n = 0;
	ssize_t got;

	while (n < sizeof(in) - 1 && (got = read(0, in + n, sizeof(in) - 1 - n)) > 0)
		n += got;
	in[n] = 0;
	if (strstr(in, "action=metadata"))
		return write(1, metadata, sizeof(metadata) - 1) < 0;
	return 0;
}
