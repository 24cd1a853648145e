// A stand-in for Jenkins: the declarative steps that exported files use, run by plain Groovy.
//
//     groovy jenkins.groovy JENKINSFILE BRANCH [CHANGE_TARGET]
//
// A stage runs if its `when` holds; the first command that fails ends the build, after what `post`
// of its stage and of the pipeline say. A person approves whatever waits for one; parameters come
// from the environment. A step that Jenkins does not have is an error, as there.

import groovy.json.JsonOutput

class Build {
    Map<String, String> env
    Map<String, String> stageEnv = [:]
    boolean isFailed = false
    boolean holds = true
    List<Closure> after = []

    def inside(Closure body) {
        body.delegate = this
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body.call()
    }

    void pipeline(Closure body) {
        inside(body)
        finish()
        if (isFailed) System.exit(1)
    }

    // However a stage or the pipeline ended.
    void finish() {
        def failed = isFailed
        after.each {
            isFailed = false
            inside(it)
            failed |= isFailed
        }
        isFailed = failed
    }

    def getAny() { 'any' }
    void agent(Object where) { assert where == 'any' }
    void agent(Closure body) { inside(body) }
    void label(String name) { println "agent: $name" }
    void options(Closure body) { inside(body) }
    void disableConcurrentBuilds() {}
    void buildDiscarder(Object rotator) {}
    Object logRotator(Map settings) { settings }
    void timeout(Map settings) { assert settings.unit == 'MINUTES' && settings.time > 0 }
    void parameters(Closure body) { inside(body) }
    void string(Map settings) { env[settings.name] = System.getenv(settings.name) ?: settings.defaultValue }
    void triggers(Closure body) { inside(body) }
    void cron(String spec) { println "cron: $spec" }
    void stages(Closure body) { inside(body) }

    void stage(String name, Closure body) {
        if (isFailed) return
        def outer = [holds, after, stageEnv]
        (after, stageEnv) = [[], stageEnv + [:]]
        println "stage: $name"
        inside(body)
        if (holds) finish()
        (holds, after, stageEnv) = outer
    }

    void when(Closure body) { inside(body) }
    void beforeInput(boolean value) { assert value }
    void branch(String name) { holds = holds && env.BRANCH_NAME == name && !env.CHANGE_TARGET }
    void changeRequest() { holds = holds && env.CHANGE_TARGET != null }
    void input(Closure body) { if (holds) inside(body) }
    void message(String text) { println "approved: $text" }
    void environment(Closure body) {
        body.delegate = stageEnv
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body.call()
    }
    void steps(Closure body) { if (holds && !isFailed) inside(body) }
    void post(Closure body) { inside(body) }
    void always(Closure body) { after << body }
    void archiveArtifacts(Map settings) { println "archived: $settings.artifacts" }

    void sh(String command) {
        if (isFailed) return
        println "sh: ${JsonOutput.toJson(command)}"
        def builder = new ProcessBuilder('sh', '-xec', command).redirectErrorStream(true)
        builder.environment().putAll((env + stageEnv).findAll { it.value != null })
        def process = builder.start()
        process.inputStream.eachLine { println it }
        if (process.waitFor() != 0) {
            println "script returned exit code ${process.exitValue()}"
            isFailed = true
        }
    }
}

def build = new Build(env: [BRANCH_NAME: args[1], CHANGE_TARGET: args.length > 2 ? args[2] : null])
def binding = new Binding([env: build.env])
def configuration = new org.codehaus.groovy.control.CompilerConfiguration(scriptBaseClass: DelegatingScript.name)
def script = new GroovyShell(this.class.classLoader, binding, configuration).parse(new File(args[0]))
script.setDelegate(build)
script.run()
