// SPDX-License-Identifier: GPL-2.0-only
/*
 * pacemaker_client.c - ask a running pacemaker-fenced, over one connection that is kept
 *
 * It registers the agent that is its argument as the device of nodes n1 to n254, without a limit of
 * actions at a time. Then for each number on a line of its input, it asks for so many nodes to be
 * powered off, all at once, and prints a line for each when all results are in: the times of request
 * and of result in ns of CLOCK_MONOTONIC, and Pacemaker's result, 0 for success. Nothing is started
 * in between but what pacemaker-fenced itself starts.
 */

#include <crm/crm.h>
#include <crm/stonith-ng.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>

#define NODES 254
#define TIMEOUT 300	/* seconds; nothing takes as long */

static struct {
	long long asked, answered;
	int rc;
} fences[NODES];
static int waiting;

static long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void answered(stonith_t *st, stonith_callback_data_t *data)
{
	int i = GPOINTER_TO_INT(data->userdata);

	fences[i].answered = now();
	fences[i].rc = data->rc;
	waiting--;
}

/* Wait for what is outstanding. */
static int dispatch(stonith_t *st, int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	while (waiting > 0)
		if (poll(&pfd, 1, TIMEOUT * 1000) != 1 || !stonith_dispatch(st))
			return -1;
	return 0;
}

static int fence(stonith_t *st, int fd, int n)
{
	char node[16];
	int i, call;

	waiting = n;
	for (i = 0; i < n; i++) {
		snprintf(node, sizeof(node), "n%d", i + 1);
		fences[i].asked = now();
		call = st->cmds->fence(st, st_opt_none, node, "off", TIMEOUT, 0);
		st->cmds->register_callback(st, call, TIMEOUT, st_opt_none, GINT_TO_POINTER(i),
					    "answered", answered);
	}
	if (dispatch(st, fd))
		return -1;
	for (i = 0; i < n; i++)
		printf("%lld %lld %d\n", fences[i].asked, fences[i].answered, fences[i].rc);
	fflush(stdout);
	return 0;
}

static int add_device(stonith_t *st, const char *agent)
{
	stonith_key_value_t *params = NULL;
	GString *nodes = g_string_new(NULL);
	int i;

	for (i = 1; i <= NODES; i++)
		g_string_append_printf(nodes, "n%d ", i);
	params = stonith_key_value_add(params, "pcmk_host_list", nodes->str);
	params = stonith_key_value_add(params, "pcmk_action_limit", "-1");
	return st->cmds->register_device(st, st_opt_sync_call, "bench", "redhat", agent, params);
}

int main(int argc, char **argv)
{
	stonith_t *st = stonith_api_new();
	int i, fd, n, rc;

	if (argc != 2)
		return 2;
	/* The daemon may have been started just now. */
	for (i = 0, rc = -1; rc && i < 100; i++) {
		rc = st->cmds->connect(st, "o2fence-bench", &fd);
		if (rc)
			usleep(100000);
	}
	if (!rc)
		rc = add_device(st, argv[1]);
	if (rc) {
		fprintf(stderr, "pacemaker-fenced: %s\n", pcmk_strerror(rc));
		return 1;
	}
	while (scanf("%d", &n) == 1)
		if (n < 1 || n > NODES || fence(st, fd, n))
			return 1;
	return 0;
}
