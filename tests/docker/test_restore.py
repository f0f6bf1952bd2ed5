"""The profiles `backup` and `restore`: what was accepted answers on a machine that had nothing."""


def test_task_ids_answer_after_a_restore_into_new_volumes(stack, tmp_path):
    stack.variables["BACKUP_DIR"] = tmp_path
    task_ids = [stack.submit()["id"] for _ in range(2)]
    with stack.profile("backup", "backup"):
        now = ("python", "-m", "deploy.backup", "backup", "--redis-dir", "/redis")
        assert "verified" in stack.run_in("backup", *now, "--to", "/backups")
    stack.compose("down", "--volumes")
    stack.compose("run", "--rm", "restore")
    stack.up()
    assert {stack.read(task_id)["state"] for task_id in task_ids} == {"SUCCESS"}
    assert stack.submit()["state"] == "SUCCESS"
