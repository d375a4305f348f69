// SPDX-License-Identifier: GPL-2.0-only
/* core_methods.c - fence methods for the tests of the core, one for each way to behave */

#include "o2fence.h"

static char *also;
module_param(also, charp, 0);
MODULE_PARM_DESC(also, "one more method to register");

static unsigned int accepted, refused;
module_param(accepted, uint, 0444);
MODULE_PARM_DESC(accepted, "answers of core-twice that the core took");
module_param(refused, uint, 0444);
MODULE_PARM_DESC(refused, "answers of core-twice that it refused as stale");

static int answer(struct o2fence_node *nd, int err, const char *msg)
{
	return node_fence_result(nd->nd_record.re_id, nd->nd_record.re_attempt, err, msg);
}

static int ok(struct o2fence_node *nd)
{
	return answer(nd, 0, "");
}

static int fail(struct o2fence_node *nd)
{
	return -EIO;
}

static int fail_later(struct o2fence_node *nd)
{
	answer(nd, -EHOSTDOWN, "the device said no");
	return 0;
}

static int never(struct o2fence_node *nd)
{
	return 0;
}

static int twice(struct o2fence_node *nd)
{
	int i, err;

	for (i = 0; i < 2; i++) {
		err = answer(nd, 0, "");
		if (!err)
			accepted++;
		else if (err == -ESTALE)
			refused++;
	}
	return 0;
}

static const struct {
	const char	*name;
	node_fence_fn	fn;
} methods[] = {
	{ "core-ok", ok },
	{ "core-fail", fail },
	{ "core-fail-later", fail_later },
	{ "core-never", never },
	{ "core-twice", twice },
};

static void forget(int n)
{
	while (n--)
		node_unregister_fence_method(methods[n].name);
}

static int __init core_methods_init(void)
{
	int i, err;

	for (i = 0; i < ARRAY_SIZE(methods); i++) {
		err = node_register_fence_method(methods[i].name, methods[i].fn, THIS_MODULE);
		if (err)
			goto out;
	}
	err = also ? node_register_fence_method(also, ok, THIS_MODULE) : 0;
	if (!err)
		return 0;
out:
	forget(i);
	return err;
}

static void __exit core_methods_exit(void)
{
	forget(ARRAY_SIZE(methods));
	if (also)
		node_unregister_fence_method(also);
}

module_init(core_methods_init);
module_exit(core_methods_exit);
MODULE_DESCRIPTION("Fence methods for the tests of o2fence's core");
MODULE_LICENSE("GPL");
