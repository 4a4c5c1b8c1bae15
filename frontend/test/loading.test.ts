import { describe, expect, it } from "vitest";
import { latestAnswer } from "../src/state/loading";

/** Questions whose answers come when the test says so. */
function asked() {
  const questions: { answer(text: string): void; fail(reason: unknown): void }[] = [];
  const heard: string[] = [];
  const latest = latestAnswer(
    () => new Promise<string>((answer, fail) => void questions.push({ answer, fail })),
    (text) => heard.push(text),
    (error) => heard.push(`failed: ${error.message}`),
  );
  return { questions, heard, latest };
}

/** Lets answers arrive. */
const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

describe("questions that overlap", () => {
  it("count by the last one, whichever is answered last", async () => {
    const { questions, heard, latest } = asked();
    latest.load();
    latest.load();
    questions[1]!.answer("new");
    await turn();
    questions[0]!.answer("old");
    await turn();
    expect(heard).toEqual(["new"]);
  });

  it("are not over when an older one is", async () => {
    const { questions, heard, latest } = asked();
    latest.poll();
    latest.load();
    questions[0]!.fail("too late");
    await turn();
    expect(heard).toEqual([]);
    latest.poll();
    expect(questions).toHaveLength(2);
    questions[1]!.answer("new");
    await turn();
    expect(heard).toEqual(["new"]);
  });

  it("are not added to by a poll, which asks again once there is an answer", async () => {
    const { questions, heard, latest } = asked();
    latest.load();
    latest.poll();
    expect(questions).toHaveLength(1);
    questions[0]!.fail(new Error("gone"));
    await turn();
    latest.poll();
    expect(questions).toHaveLength(2);
    expect(heard).toEqual(["failed: gone"]);
  });
});
